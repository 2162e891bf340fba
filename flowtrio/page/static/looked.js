/** One run from near, live or past, from a server or from a file. */

import { Turn } from "./conversation.js";
import { brief, byId, copyButton, el } from "./dom.js";
import { Events } from "./events.js";
import { Lanes } from "./lanes.js";
import { Log } from "./log.js";
import { wordOf } from "./runs.js";
import { Timeline } from "./timeline.js";
import { usageTable } from "./usage.js";
import { addressOf } from "./where.js";

/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */
/** @typedef {import("./flowtrio.js").Client} Client */
/** @typedef {import("./flowtrio.js").Run} Run */

/**
 * What the studio's parts use.
 *
 * @typedef {object} Tools
 * @property {(path: string, options?: {method?: string, body?: unknown}) => Promise<any>} load Asks the server; throws what it refuses.
 * @property {(tenant: string) => Client} open A connection about a tenant's runs.
 * @property {() => void} look Looks again at what there is.
 * @property {(error: Error) => void} notify
 * @property {(text: string) => void} announce
 */

const COPY = "Copy the link";
const TABS = ["timeline", "events", "talk", "usage"];

export class Looked {
  /** The address of what is looked at. */ id = "";
  #tools;
  /** @type {Client | null} */ #client = null;
  /** @type {Run | null} */ #run = null;
  #events = new Events();
  #lanes = new Lanes();
  /** @type {Turn | null} */ #turn = null;
  /** @type {number | null} The event that is to be shown once it is there. */ #at = null;
  #isScheduled = false;
  /** Whether the table of what was used lacks something. */ #isUsageOld = true;
  #title = byId("title", HTMLElement);
  #facts = byId("facts", HTMLElement);
  #cancel = byId("cancel", HTMLButtonElement);
  #talk = byId("talk", HTMLElement);
  #usage = byId("usage", HTMLElement);
  #link;

  /** @param {Tools} tools */
  constructor(tools) {
    this.#tools = tools;
    this.log = new Log(byId("events", HTMLElement), tools.notify, (seq) => this.#note(seq));
    this.timeline = new Timeline(byId("timeline", HTMLElement), (seq) => this.#reveal(seq));
    this.#link = copyButton("quiet", () => location.href, this.#title);
    this.#link.textContent = COPY;
    byId("link", HTMLElement).replaceWith(this.#link);
    this.#cancel.addEventListener("click", () => {
      this.#run?.cancel("cancelled by an operator").catch(tools.notify);
    });
    for (const name of TABS) this.#prepareTab(name);
  }

  /** Look at a run, at the moment of an event. @param {string} tenant @param {string} run @param {number | null} at */
  async show(tenant, run, at) {
    const id = addressOf("run", tenant, run);
    if (this.id === id) {
      if (at !== null) this.#reveal(at);
      return;
    }
    const open = () => this.#tools.open(tenant);
    this.#begin(id, at, new Events(run, open));
    const client = (this.#client = open());
    // Who looks for a moment looks at each event.
    const followed = (this.#run = client.resume(run, { snapshot: at === null ? "log" : false }));
    this.#facts.textContent = tenant;
    try {
      for await (const event of followed) this.#add(event, tenant);
    } catch (error) {
      if (this.#client !== client) return;
      this.#lanes.isOver = true;
      this.#turn?.fail("not to be followed", /** @type {Error} */ (error).message);
      this.#title.textContent ||= "This run is not there any more";
      this.#tools.notify(/** @type {Error} */ (error));
    }
  }

  /** Look at a log from a file. @param {string} name @param {AgentEvent[]} events */
  showLog(name, events) {
    this.#begin(addressOf("file", name), null, new Events());
    for (const event of events) this.#add(event, name);
    this.#lanes.isOver = true;
  }

  /** Look at nothing. */
  forget() {
    this.#client?.close();
    this.#client = this.#run = null;
    this.id = "";
  }

  /** @param {string} id @param {number | null} at @param {Events} events */
  #begin(id, at, events) {
    this.forget();
    this.id = id;
    this.#at = at;
    this.#events = events;
    this.#lanes = new Lanes();
    this.#turn = null;
    this.#title.textContent = "";
    this.#cancel.hidden = true;
    // A file has no address that somebody else could use.
    this.#link.hidden = !id.startsWith("#/run/");
    this.#link.textContent = COPY;
    this.#talk.replaceChildren();
    this.#usage.replaceChildren();
    this.#isUsageOld = true;
    byId("no-run", HTMLElement).hidden = true;
    byId("about", HTMLElement).hidden = false;
    this.timeline.show(this.#lanes);
    this.log.show(this.#events);
    this.#selectTab(at === null ? "timeline" : "events");
  }

  /** @param {AgentEvent} event @param {string} from */
  #add(event, from) {
    if (event.type === "run_start") this.#onStart(event, from);
    this.#events.add(event);
    this.#isUsageOld ||= event.type === "message_complete" || event.type === "done";
    this.#lanes.add(event);
    this.#turn?.add(event);
    this.log.changed();
    this.timeline.changed();
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    document.hidden ? setTimeout(() => this.#flush()) : requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    this.#isScheduled = false;
    this.#turn?.flush();
    const isOver = this.#lanes.isOver || this.#run === null;
    this.#cancel.hidden = isOver;
    const { all } = this.#events;
    this.#drawUsage();
    this.#describe();
    if (this.#at !== null && (all.at(-1)?.seq ?? -1) >= this.#at) {
      this.#reveal(this.#at);
      this.#at = null;
    }
  }

  /** Where it is seen, and is not what it was. */
  #drawUsage() {
    if (!this.#isUsageOld || this.#usage.hidden) return;
    this.#isUsageOld = false;
    this.#usage.replaceChildren(usageTable(this.#events.all));
  }

  /** @param {AgentEvent} event @param {string} from */
  #onStart({ data, timestamp, run_id }, from) {
    this.#title.textContent = brief(data.message, 160) || "Without words";
    this.#title.dir = "auto";
    const began = new Date(timestamp * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
    this.#facts.dataset.of = [from, data.agent, began, `run ${run_id}`].join(" · ");
    this.#turn = new Turn(data.message, this.#controls());
    this.#talk.append(this.#turn.element);
    if (data.session_id !== null && this.#run !== null) this.#findOthers(from, data.session_id, run_id);
  }

  /** Before everything else, how it is. */
  #describe() {
    const { all } = this.#events;
    const status = all.findLast(({ type }) => type === "state_change")?.data.new_status;
    const failure = all.findLast(({ type }) => type === "error")?.data;
    const why = failure === undefined ? "" : `${failure.code.replaceAll("_", " ")}: ${brief(failure.error, 200)}`;
    const how = [status && wordOf(status), why].filter(Boolean).join(": ");
    this.#facts.textContent = [how, this.#facts.dataset.of].filter(Boolean).join(" · ");
    this.#facts.dataset.status = status ?? "";
  }

  /** The other runs of its conversation. @param {string} tenant @param {string} session @param {string} own */
  async #findOthers(tenant, session, own) {
    const { id } = this;
    let found;
    try {
      found = await this.#tools.load(`sessions/${encodeURIComponent(session)}?${new URLSearchParams({ tenant })}`);
    } catch {
      return; // The conversation was deleted: the run's own part of it is there.
    }
    if (this.id !== id || found.runs.length < 2) return;
    const links = found.runs.map((/** @type {any} */ { run_id, message }) => {
      const link = el("a", "", message || "Without words");
      link.href = addressOf("run", tenant, run_id);
      if (run_id === own) link.setAttribute("aria-current", "true");
      return el("li", "", link);
    });
    this.#talk.prepend(el("p", "note", "In a conversation of several runs:"), el("ol", "others", ...links));
  }

  /** @returns {import("./conversation.js").Controls} */
  #controls() {
    const control = (/** @type {(run: Run) => Promise<void>} */ act) => {
      if (this.#run === null) return Promise.resolve("It comes from a file.");
      return act(this.#run).then(() => null, (error) => /** @type {string} */ (error.message));
    };
    return {
      approve: (callId, args) => control((run) => run.approve(callId, args)),
      deny: (callId, reason) => control((run) => run.deny(callId, reason)),
      cancelTool: (callId) => control((run) => run.cancelTool(callId).catch(this.#tools.notify)),
      answer: (requestId, value) => control((run) => run.answer(requestId, value)),
      dismiss: (requestId) => control((run) => run.dismiss(requestId)),
      inspect() {},
      retry() {},
      edit() {},
      announce: this.#tools.announce,
      settled() {},
    };
  }

  /** Show an event. @param {number} seq */
  #reveal(seq) {
    this.#selectTab("events");
    this.log.reveal(seq);
  }

  /** The address names the event that is looked at. @param {number} seq */
  #note(seq) {
    if (this.#run === null) return;
    history.replaceState(null, "", `${this.id}?at=${seq}`);
    this.#link.textContent = COPY;
  }

  /** @param {string} chosen */
  #selectTab(chosen) {
    for (const name of TABS) {
      const tab = byId(`tab-${name}`, HTMLElement);
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
      byId(name, HTMLElement).hidden = name !== chosen;
    }
    if (chosen === "timeline") this.timeline.draw();
    if (chosen === "events") this.log.look();
    if (chosen === "usage") this.#drawUsage();
  }

  /** @param {string} name */
  #prepareTab(name) {
    const tab = byId(`tab-${name}`, HTMLElement);
    tab.addEventListener("click", () => this.#selectTab(name));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step === undefined) return;
      const next = TABS[(TABS.indexOf(name) + step + TABS.length) % TABS.length];
      this.#selectTab(next);
      byId(`tab-${next}`, HTMLElement).focus();
    });
  }
}

/**
 * The events of a log: one in a line, as JSON.
 *
 * @param {string} text
 * @returns {AgentEvent[]}
 * @throws {Error} It is none.
 */
export function readLog(text) {
  const events = parseLog(text);
  const turn = new Turn("", UNASKED);
  const lanes = new Lanes();
  events.forEach((event, place) => {
    try {
      lanes.add(event);
      turn.add(event);
      turn.flush();
      // The last row is of both: all that was used, and whether anything was.
      if (event.type === "done") usageTable(events);
      else usageTable([event]);
    } catch {
      throw new Error(`This file is not a log of a run: event ${place + 1}, ${brief(event.type, 40)}, lacks what such a one has.`);
    }
  });
  return events;
}

/** What nobody is asked by. @type {import("./conversation.js").Controls} */
const UNASKED = {
  approve: async () => null,
  deny: async () => null,
  cancelTool: async () => null,
  answer: async () => null,
  dismiss: async () => null,
  inspect() {},
  retry() {},
  edit() {},
  announce() {},
  settled() {},
};

/** @param {string} text @returns {AgentEvent[]} */
function parseLog(text) {
  const lines = text.split("\n").map((line, place) => ({ line, place })).filter(({ line }) => line.trim() !== "");
  if (lines.length === 0) throw new Error("This file has no events.");
  return lines.map(({ line, place }) => {
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      event = null;
    }
    const { type, seq, data, agent, timestamp } = event ?? {};
    const isOne = [type, agent].every((each) => typeof each === "string") && [seq, timestamp].every(Number.isFinite) && typeof data === "object" && data !== null;
    if (!isOne) throw new Error(`This file is not a log of a run: line ${place + 1} is not an event.`);
    return event;
  });
}
