/**
 * The conversation: each run is a turn, made of what was said, what was done, and how it ended.
 *
 * A turn takes a run's events in order and shows them in place; it keeps nothing that the events
 * do not say, so a replay from the first event gives the same turn again.
 */

import { brief, briefArguments, button, duration, el, pretty } from "./dom.js";
import { ArgumentsEditor, Question, settleAsking } from "./asking.js";
import { chip, isPicture, picture } from "./attachments.js";
import { Markdown } from "./markdown.js";

/** @typedef {import("./attachments.js").Told} Told */

/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */

/**
 * What a person can do about a run.
 *
 * @typedef {object} Controls
 * @property {(callId: string, args?: object) => Promise<boolean>} approve Each gives whether it was taken.
 * @property {(callId: string, reason?: string) => Promise<boolean>} deny
 * @property {(callId: string) => Promise<boolean>} cancelTool
 * @property {(requestId: string, value: unknown) => Promise<boolean>} answer
 * @property {(requestId: string) => Promise<boolean>} dismiss
 * @property {() => void} inspect
 * @property {(text: string) => void} announce Tell those who do not see the page.
 * @property {() => void} settled Something changed that no event told.
 */

/**
 * What a person is asked.
 *
 * @typedef {object} Asking
 * @property {HTMLElement} element All of it.
 * @property {HTMLElement} field Where the keyboard belongs.
 * @property {string} title In a few words.
 */

const STATUSES = {
  initializing: "Starting",
  running: "Running",
  waiting_for_input: "Waiting for your answer",
  waiting_for_approval: "Waiting for your approval",
  completed: "Completed",
  error: "Failed",
  cancelled: "Stopped",
};

const OUTCOMES = {
  writing: "preparing",
  waiting: "needs approval",
  running: "running",
  ok: "done",
  error: "failed",
  timeout: "timed out",
  cancelled: "cancelled",
  denied: "denied",
};

/** @param {Record<string, string>} words @param {string} key */
const word = (words, key) => words[key] ?? key;

/** One message of a model: its text, and its reasoning if it shows any. */
class Message {
  text = "";
  reasoning = "";
  isDirty = false;

  constructor() {
    this.body = el("div", "markdown");
    this.thoughts = el("div", "thoughts");
    this.details = el("details", "reasoning", el("summary", "", "Reasoning"), this.thoughts);
    this.details.hidden = true;
    this.notes = el("div", "notes");
    this.element = el("div", "message", this.details, this.body, this.notes);
    this.markdown = new Markdown(this.body);
  }

  /** Show what has come since the last time. */
  flush() {
    if (!this.isDirty) return;
    this.isDirty = false;
    this.markdown.show(this.text);
    this.details.hidden = this.reasoning === "";
    this.thoughts.textContent = this.reasoning;
  }

  /** @param {string} text @param {string} [kind] */
  note(text, kind = "note") {
    this.notes.append(el("p", kind, text));
  }
}

/** One call of a tool. */
class Call {
  /** @param {string} callId @param {string} name @param {Controls} controls */
  constructor(callId, name, controls) {
    this.callId = callId;
    this.name = name;
    this.controls = controls;
    this.arguments = el("span", "arguments");
    this.outcome = el("span", "outcome");
    this.stop = button("Cancel", "quiet", () => controls.cancelTool(callId));
    this.stop.setAttribute("aria-label", `Cancel ${name}`);
    const head = el("div", "head", el("span", "mark"), el("strong", "name", name), this.arguments);
    head.append(el("span", "end", this.outcome, this.stop));
    this.progress = el("div", "progress");
    this.question = el("div", "question");
    this.facts = el("dl");
    this.details = el("details", "facts", el("summary", "", "Details"), this.facts);
    this.details.hidden = true;
    this.element = el("section", "call", head, this.progress, this.question, this.details);
    this.element.setAttribute("aria-label", `Tool ${name}`);
    this.set("writing");
  }

  /** @param {string} outcome @param {number | null} [seconds] */
  set(outcome, seconds = null) {
    this.element.dataset.outcome = outcome;
    const time = duration(seconds);
    this.outcome.textContent = word(OUTCOMES, outcome) + (time && ` · ${time}`);
    this.stop.hidden = outcome !== "running";
  }

  /** @param {Record<string, unknown>} values */
  setArguments(values) {
    if (this.arguments.textContent) return;
    this.arguments.textContent = briefArguments(values);
    this.fact("Arguments", values);
  }

  /** @param {string} label @param {unknown} value */
  fact(label, value) {
    this.details.hidden = false;
    const said = el("pre", "", pretty(value));
    said.dir = "auto";
    said.tabIndex = 0;
    this.facts.append(el("dt", "", label), el("dd", "", said));
  }

  /** @param {any} progress */
  report(progress) {
    const part = typeof progress === "number" ? progress : progress?.done / progress?.total;
    if (part >= 0 && part <= 1) {
      const bar = el("progress");
      bar.value = part;
      bar.setAttribute("aria-label", `Progress of ${this.name}`);
      this.progress.replaceChildren(bar, el("span", "", `${Math.round(part * 100)} %`));
    } else {
      const isPlain = progress !== null && typeof progress === "object" && !Array.isArray(progress);
      this.progress.textContent = isPlain ? briefArguments(progress) : brief(progress);
    }
  }

  /** Ask the person whether it may begin. @param {any} data */
  ask(data) {
    this.set("waiting");
    this.setArguments(data.arguments);
    this.details.open = true;
    const reason = el("input");
    reason.placeholder = "Reason (optional)";
    reason.setAttribute("aria-label", `Reason to deny ${this.name}`);
    const { controls, callId } = this;
    const settle = (/** @type {() => Promise<boolean>} */ act) => () => {
      settleAsking(this.element, this.question, act, controls);
    };
    const editor = new ArgumentsEditor(this.name, data.arguments);
    const send = settle(() => controls.approve(callId, editor.value));
    const approve = button("Approve", "primary", () => editor.isValid() && send());
    const deny = button("Deny", "", settle(() => controls.deny(callId, reason.value || undefined)));
    approve.setAttribute("aria-label", `Approve ${this.name}`);
    deny.setAttribute("aria-label", `Deny ${this.name}`);
    const within = data.deadline ? ` It waits for ${duration(data.deadline)}.` : "";
    this.question.append(
      el("p", "", "The agent wants to use this tool.", within),
      editor.element,
      el("div", "actions", approve, deny, editor.toggle, reason),
    );
    this.element.dataset.asks = `Approve ${brief(this.name, 40)}?`;
  }

  /** Nobody is asked any more. */
  answered() {
    this.question.replaceChildren();
    delete this.element.dataset.asks;
  }

  /** @param {any} data */
  end(data) {
    this.answered();
    if (data.outcome === "ok") this.progress.replaceChildren();
    this.set(data.outcome, data.duration);
    if (data.result !== null) this.fact("Result", data.result);
    if (data.error !== null) this.fact(data.outcome === "denied" ? "Reason" : "Error", data.error);
    this.details.open = data.outcome === "error";
  }
}

/** One run, as a part of the conversation. */
export class Turn {
  /** Whether nothing more will come. */
  isOver = false;
  /** @type {HTMLElement | null} Where it says why it failed. */ failure = null;
  /** @type {Map<string, Message>} */ #messages = new Map();
  /** @type {Map<string, Call>} */ #calls = new Map();
  /** @type {Map<string, Question>} */ #questions = new Map();
  /** @type {Map<string, HTMLElement>} Where each agent's doings are shown. */ #places = new Map();
  /** @type {Set<Message>} */ #dirty = new Set();

  /** @type {Told[]} What was sent with the message, as far as that is known. */ parts = [];
  /** Whether some of it is told of and not shown. */
  get lacksPictures() {
    return this.parts.some((told, place) => isPicture(told) && this.shownParts.children[place]?.tagName !== "IMG");
  }

  /** @param {string} message @param {Controls} controls @param {{told: Told, src: string | null}[]} [sent] */
  constructor(message, controls, sent = []) {
    this.controls = controls;
    const said = el("div", "said", message);
    said.dir = "auto";
    said.hidden = message === "";
    this.shownParts = el("div", "parts");
    this.tellParts(sent.map(({ told }) => told));
    sent.forEach(({ src }, place) => this.showPicture(place, src));
    this.answer = el("div", "answer");
    this.status = el("span", "status", "Sending");
    this.figures = el("span", "figures");
    this.inspect = button("Show the run", "quiet", () => controls.inspect());
    this.footer = el("footer", "", this.status, this.figures, this.inspect);
    // Whoever goes from heading to heading finds each turn, and the answer's own below it.
    const heading = el("h2", "hidden", `You: ${brief(message, 80)}`);
    this.element = el("article", "turn", heading, this.shownParts, said, this.answer, this.footer);
    this.element.dataset.status = "initializing";
    this.#places.set("root", this.answer);
  }

  /** Say what was sent with the message. @param {Told[]} parts */
  tellParts(parts) {
    if (this.parts.length === parts.length) return;
    this.parts = parts;
    this.shownParts.replaceChildren(...parts.map(chip));
  }

  /** Show one of them. @param {number} place @param {string | null} src */
  showPicture(place, src) {
    const told = this.parts[place];
    if (told === undefined || src === null || !isPicture(told)) return;
    this.shownParts.children[place]?.replaceWith(picture(src, told));
  }

  /** Show what has come since the last time. */
  flush() {
    for (const message of this.#dirty) message.flush();
    this.#dirty.clear();
  }

  /** It did not start, or cannot be followed any further. @param {string} code @param {string} text */
  fail(code, text) {
    this.isOver = true;
    this.flush();
    this.#settle("error", "Failed");
    for (const node of this.#asking()) delete node.dataset.asks;
    this.failure = el("div", "failure", el("strong", "", code), el("p", "", text));
    this.answer.append(this.failure);
    this.controls.announce(`Failed: ${code}`);
  }

  /** What a person is asked first, if anything. @returns {Asking | null} */
  asking() {
    const [element] = this.#asking();
    const field = element?.querySelector(".actions > :first-child");
    if (!(field instanceof HTMLElement)) return null;
    // What is folded away cannot be seen.
    for (let at = element.parentElement; at !== null && at !== this.element; at = at.parentElement) {
      if (at instanceof HTMLDetailsElement) at.open = true;
    }
    return { element, field, title: element.dataset.asks ?? "" };
  }

  #asking() {
    return /** @type {NodeListOf<HTMLElement>} */ (this.answer.querySelectorAll("[data-asks]"));
  }

  /** @param {AgentEvent} event */
  add({ type, data, agent }) {
    switch (type) {
      case "run_start":
        return this.tellParts(data.parts ?? []);
      case "state_change":
        return this.#onStatus(data);
      case "message_chunk":
        return this.#change(data, agent, (message) => (message.text += data.chunk));
      case "reasoning_chunk":
        return this.#change(data, agent, (message) => (message.reasoning += data.chunk));
      case "message_part":
        return this.#message(data, agent).note(brief(data.part, 400), "part");
      case "message_reset":
        return this.#onReset(data, agent);
      case "message_complete":
        return this.#onComplete(data, agent);
      case "tool_call_args":
        return void this.#call(data, agent);
      case "approval_required":
        this.controls.announce(`${data.tool_name} needs your approval`);
        return this.#call(data, agent).ask(data);
      case "tool_call_start":
        return this.#onStart(data, agent);
      case "tool_progress":
        return this.#call(data, agent).report(data.progress);
      case "tool_call_end":
        return this.#call(data, agent).end(data);
      case "agent_start":
        return this.#onAgentStart(data);
      case "agent_end":
        return this.#onAgentEnd(data);
      case "input_required":
        return this.#onQuestion(data, agent);
      case "input_resolved":
        return this.#questions.get(data.request_id)?.resolve(data);
      case "user_message":
        return this.#onUserMessage(data);
      case "error":
        return this.#onError(data);
      case "done":
        return this.#onDone(data);
    }
  }

  // What each event changes

  /** @param {any} data */
  #onStatus({ new_status, reason }) {
    this.#settle(new_status, reason && new_status === "running" ? reason : word(STATUSES, new_status));
  }

  /** @param {string} status @param {string} text */
  #settle(status, text) {
    this.element.dataset.status = status;
    this.status.textContent = text;
  }

  /** @param {any} data @param {string} agent @param {(message: Message) => void} change */
  #change(data, agent, change) {
    const message = this.#message(data, agent);
    change(message);
    message.isDirty = true;
    this.#dirty.add(message);
  }

  /** @param {any} data @param {string} agent */
  #onReset(data, agent) {
    this.#change(data, agent, (message) => (message.text = message.reasoning = ""));
    this.#message(data, agent).note(`Begun anew: ${data.reason}`);
  }

  /** @param {any} data @param {string} agent */
  #onComplete(data, agent) {
    const message = this.#messages.get(data.message_id);
    if (data.content === "" && message === undefined) return;
    this.#change(data, agent, (message) => (message.text = data.content));
    const notes = {
      length: "Cut: the model reached its limit.",
      content_filter: "Withheld by the provider's filter.",
      cancelled: "Stopped here.",
      error: "Broken off here.",
    };
    const note = word(notes, data.finish_reason);
    if (note !== data.finish_reason) this.#message(data, agent).note(note);
  }

  /** @param {any} data @param {string} agent */
  #onStart(data, agent) {
    const call = this.#call(data, agent);
    call.answered();
    call.details.open = false;
    call.setArguments(data.arguments);
    call.set("running");
  }

  /** @param {any} data */
  #onAgentStart({ agent }) {
    const inside = el("div", "inside");
    const name = el("summary", "", el("span", "mark"), el("strong", "", agent.split("/").pop()));
    const element = el("details", "agent", name, inside);
    element.open = true;
    element.dataset.outcome = "running";
    this.#place(agent).append(element);
    this.#places.set(agent, inside);
  }

  /** @param {any} data */
  #onAgentEnd({ agent, outcome, error, duration: seconds }) {
    const element = this.#places.get(agent)?.parentElement;
    if (!(element instanceof HTMLDetailsElement)) return;
    element.dataset.outcome = outcome;
    const said = `${word(OUTCOMES, outcome)} · ${duration(seconds)}`;
    element.querySelector("summary")?.append(el("span", "outcome", said));
    if (error !== null) this.#places.get(agent)?.append(el("p", "note", error));
  }

  /** @param {any} data @param {string} agent */
  #onQuestion(data, agent) {
    const question = new Question(data, this.controls);
    this.#questions.set(data.request_id, question);
    this.#place(agent).append(question.element);
    this.controls.announce("The agent asks you something");
  }

  /** @param {any} data */
  #onUserMessage({ message, parts }) {
    const said = el("div", "said", message);
    said.dir = "auto";
    said.hidden = message === "";
    this.answer.append(...parts.map(chip), said);
  }

  /** @param {any} data */
  #onError({ error, code, source, causes }) {
    const node = el("div", "failure", el("strong", "", code.replaceAll("_", " ")), el("p", "", error));
    node.append(el("p", "note", `Source: ${source}`));
    if (causes.length > 0) {
      const list = el("ul");
      for (const cause of causes) list.append(el("li", "", brief(cause.error, 400)));
      node.append(el("details", "", el("summary", "", "Causes"), list));
    }
    this.answer.append(node);
    this.failure = node;
  }

  /** @param {any} data */
  #onDone({ status, usage, duration: seconds, events, result }) {
    this.isOver = true;
    // Now, not with the next frame: who reads that it is completed finds all of it.
    this.flush();
    this.#settle(status, word(STATUSES, status));
    const tokens = (usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0);
    const figures = [duration(seconds), `${events} events`];
    if (tokens > 0) figures.splice(1, 0, `${usage.quality === "lower_bound" ? "≥ " : ""}${tokens} tokens`);
    this.figures.textContent = figures.join(" · ");
    if (this.answer.childElementCount === 0 && result !== null) {
      this.answer.append(el("pre", "result", pretty(result)));
    }
    this.controls.announce(`Answer ${word(STATUSES, status).toLowerCase()}`);
  }

  // Finding what an event is about

  /** Where an agent's doings are shown: its own place, or that of the nearest one above. @param {string} agent */
  #place(agent) {
    let path = agent;
    while (!this.#places.has(path) && path.includes("/")) path = path.slice(0, path.lastIndexOf("/"));
    return this.#places.get(path) ?? this.answer;
  }

  /** @param {any} data @param {string} agent */
  #message(data, agent) {
    let message = this.#messages.get(data.message_id);
    if (message === undefined) {
      message = new Message();
      this.#messages.set(data.message_id, message);
      this.#place(agent).append(message.element);
    }
    return message;
  }

  /** @param {any} data @param {string} agent */
  #call(data, agent) {
    let call = this.#calls.get(data.call_id);
    if (call === undefined) {
      call = new Call(data.call_id, data.tool_name, this.controls);
      this.#calls.set(data.call_id, call);
      this.#place(agent).append(call.element);
    }
    return call;
  }
}
