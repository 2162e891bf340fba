/** The raw events of a run, in order, each with its `seq`. */

import { brief, el } from "./dom.js";
import { Events } from "./events.js";

/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */

/** Rows that are kept in the page; the log that can be saved is whole. */
const MOST_ROWS = 3000;
/** Rows that are made in one frame: a log that comes at once leaves room for what else is drawn. */
const AT_ONCE = 150;
const TOKENS = new Set(["message_chunk", "reasoning_chunk", "tool_call_args"]);

export class Log {
  #events = new Events();
  /** @type {{events: Events, done: Promise<void>} | null} What is being completed. */ #looking = null;
  #shown = 0;
  #isScheduled = false;
  #start = 0;

  /**
   * @param {HTMLElement} element Where it is shown.
   * @param {(error: Error) => void} failed Told why what is missing of a run could not be read.
   * @param {(seq: number) => void} [opened] Told of an event that is looked at.
   */
  constructor(element, failed, opened = () => {}) {
    this.element = element;
    this.failed = failed;
    this.opened = opened;
    this.rows = el("ol", "rows");
    this.hint = el("p", "empty");
    this.tokens = el("input");
    this.tokens.type = "checkbox";
    this.tokens.checked = true;
    this.tokens.id = "tokens";
    this.tokens.addEventListener("change", () => (element.dataset.tokens = String(this.tokens.checked)));
    const label = el("label", "", this.tokens, " Tokens");
    this.save = el("a", "button quiet", "Download the log");
    this.save.href = "#";
    this.save.addEventListener("click", () => this.#prepare());
    this.bar = el("div", "bar", label, this.save);
    element.append(this.bar, this.hint, this.rows);
    this.show(new Events());
  }

  /** Show a run. @param {Events} events Its events; more may be added to them. */
  show(events) {
    this.#events = events;
    this.#shown = 0;
    this.#start = 0;
    this.rows.replaceChildren();
    this.changed();
  }

  /** The run that is shown has new events. */
  changed() {
    this.look();
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    requestAnimationFrame(() => this.#draw());
  }

  /** Where somebody sees it, have all of it here. @returns {Promise<void>} */
  look() {
    const events = this.#events;
    if (events.isWhole || this.element.offsetParent === null) return Promise.resolve();
    if (this.#looking?.events !== events) {
      const done = events.complete().catch(this.failed).then(() => {
        if (events === this.#events) this.show(events);
      });
      this.#looking = { events, done };
    }
    return this.#looking.done;
  }

  /** Bring an event into view. @param {number} seq */
  async reveal(seq) {
    const events = this.#events;
    await this.look();
    if (events !== this.#events) return;
    this.#draw(Infinity);
    const row = this.rows.querySelector(`[data-seq="${seq}"]`);
    if (row instanceof HTMLDetailsElement) {
      row.open = true;
      row.scrollIntoView({ block: "center" });
      row.querySelector("summary")?.focus({ preventScroll: true });
    }
  }

  /** @param {number} [most] Rows that are made now; the rest comes with the next frames. */
  #draw(most = AT_ONCE) {
    this.#isScheduled = false;
    const events = this.#events.isWhole ? this.#events.all : [];
    this.#start ||= events[0]?.timestamp ?? 0;
    const isAtEnd = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    this.#shown = Math.max(this.#shown, events.length - MOST_ROWS);
    const next = events.slice(this.#shown, this.#shown + most);
    this.rows.append(...next.map((event) => this.#row(event)));
    this.#shown += next.length;
    while (this.rows.childElementCount > MOST_ROWS) this.rows.firstElementChild?.remove();
    const hidden = this.#shown - this.rows.childElementCount;
    this.bar.hidden = events.length === 0;
    this.hint.hidden = events.length > 0 && hidden === 0;
    this.hint.textContent = events.length === 0
      ? "Every event of a run appears here, in order."
      : `${hidden} earlier events are not shown; the log that you can download has them.`;
    if (isAtEnd) this.element.scrollTop = this.element.scrollHeight;
    if (this.#shown < events.length) this.changed();
  }

  /** @param {AgentEvent} event */
  #row(event) {
    const summary = el(
      "summary",
      "",
      el("span", "seq", String(event.seq)),
      el("span", "time", `+${(event.timestamp - this.#start).toFixed(2)}`),
      el("span", "type", event.type),
      el("span", "gist", gist(event)),
    );
    const row = el("details", "", summary);
    row.dataset.seq = String(event.seq);
    row.dataset.type = event.type;
    const item = el("li", TOKENS.has(event.type) ? "token" : "", row);
    row.addEventListener("toggle", () => {
      if (row.open && row.childElementCount === 1) {
        row.append(el("pre", "", JSON.stringify(event, null, 2)));
      }
      if (row.open) this.opened(event.seq);
    });
    return item;
  }

  #prepare() {
    const { all } = this.#events;
    const lines = all.map((event) => `${JSON.stringify(event)}\n`);
    const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
    this.save.href = url;
    this.save.download = `${all[0]?.run_id ?? "run"}.jsonl`;
    // The click goes on with the address that it finds now.
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}

/** What an event says, in a few words. @param {AgentEvent} event */
function gist({ type, data, agent }) {
  const where = agent === "root" ? "" : `${agent} · `;
  const said = {
    run_start: data.message,
    state_change: data.reason ? `${data.new_status}: ${data.reason}` : data.new_status,
    message_chunk: data.chunk,
    reasoning_chunk: data.chunk,
    message_complete: data.finish_reason,
    tool_call_args: data.delta,
    tool_call_start: `${data.tool_name} ${brief(data.arguments ?? {})}`,
    tool_progress: `${data.tool_name} ${brief(data.progress ?? "")}`,
    tool_call_end: `${data.tool_name} ${data.outcome}`,
    approval_required: data.tool_name,
    agent_start: "",
    agent_end: data.outcome,
    input_required: data.prompt,
    input_resolved: data.outcome,
    error: `${data.code}: ${data.error}`,
    done: data.status,
  }[type];
  return (where + brief(said ?? data)).replaceAll("\n", "⏎");
}
