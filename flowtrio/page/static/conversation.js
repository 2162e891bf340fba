/**
 * The conversation: each run is a turn, made of what was said, what was done, and how it ended.
 *
 * A turn takes a run's events in order and shows them in place; it keeps nothing that the events
 * do not say, so a replay from the first event gives the same turn again.
 */

import { brief, button, copyButton, duration, el, pretty } from "./dom.js";
import { Question } from "./asking.js";
import { Call, OUTCOMES, word } from "./call.js";
import { Markdown } from "./markdown.js";
import { Said, Waiting } from "./said.js";
import { figuresOf } from "./spent.js";

/** @typedef {import("./attachments.js").Attachment} Attachment */
/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */

/**
 * What a person can do about a run.
 *
 * @typedef {object} Controls
 * @property {(callId: string, args?: object) => Promise<string | null>} approve Each gives why it was not taken, or null.
 * @property {(callId: string, reason?: string) => Promise<string | null>} deny
 * @property {(callId: string) => Promise<string | null>} cancelTool
 * @property {(requestId: string, value: unknown) => Promise<string | null>} answer
 * @property {(requestId: string) => Promise<string | null>} dismiss
 * @property {() => void} inspect
 * @property {() => void} retry Ask the same again, instead of this.
 * @property {() => void} edit Ask something else, instead of this.
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

/** One run, as a part of the conversation. */
export class Turn {
  /** Whether nothing more will come. */
  isOver = false;
  /** Whether the server has it. */
  hasBegun = false;
  /** @type {HTMLElement | null} Where it says why it failed. */ failure = null;
  /** @type {Map<string, Message>} */ #messages = new Map();
  /** @type {Map<string, Call>} */ #calls = new Map();
  /** @type {Map<string, Question>} */ #questions = new Map();
  /** @type {Map<string, HTMLElement>} Where each agent's doings are shown. */ #places = new Map();
  /** @type {Set<Message>} */ #dirty = new Set();

  /** @type {any} What it cost, once it is over. */ usage = null;
  /** @type {Message[]} What the agent itself said. */ #answers = [];

  /** @param {string} message @param {Controls} controls @param {Attachment[]} [sent] */
  constructor(message, controls, sent = []) {
    this.controls = controls;
    this.said = new Said(message, sent);
    /** All that the person said to it, first and meanwhile. */
    this.saids = [this.said];
    this.waiting = new Waiting();
    this.answer = el("div", "answer");
    this.status = el("span", "status", "Sending");
    this.figures = el("span", "figures");
    this.copy = copyButton("quiet", () => this.#answers.map(({ text }) => text).join("\n\n"), this.answer);
    this.copy.setAttribute("aria-label", "Copy the answer");
    this.retry = button("Retry", "quiet", () => controls.retry());
    this.edit = button("Edit", "quiet", () => controls.edit());
    this.edit.setAttribute("aria-label", `Edit the message: ${brief(message, 80)}`);
    this.acts = [this.copy, this.retry, this.edit];
    for (const each of this.acts) each.hidden = true;
    const inspect = button("Show the run", "quiet", () => controls.inspect());
    const acts = el("div", "acts", ...this.acts, inspect);
    this.footer = el("footer", "", this.status, this.figures, acts);
    // Whoever goes from heading to heading finds each turn, and the answer's own below it.
    const heading = el("h2", "hidden", `You: ${brief(message, 80)}`);
    const { said, waiting } = this;
    this.element = el("article", "turn", heading, said.element, this.answer, waiting.element, this.footer);
    this.element.dataset.status = "initializing";
    this.#places.set("root", this.answer);
  }

  /** Show what has come since the last time. */
  flush() {
    for (const message of this.#dirty) message.flush();
    this.#dirty.clear();
  }

  /** It did not start, or cannot be followed any further. @param {string} code @param {string} text */
  fail(code, text) {
    this.#end();
    this.#settle("error", "Failed");
    for (const node of this.#asking()) delete node.dataset.asks;
    this.failure = el("div", "failure", el("strong", "", code), el("p", "", text));
    this.answer.append(this.failure);
    this.controls.announce(`Failed: ${code}`);
  }

  /** What a person is asked first, if anything. @returns {Asking | null} */
  asking() {
    const [element] = this.#asking();
    const fields = ".answers :is(input, select, textarea)";
    const field = element?.querySelector(fields) ?? element?.querySelector(".actions > :first-child");
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
        this.hasBegun = true;
        return this.said.tell(data.parts ?? []);
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
    const said = new Said(message, this.waiting.take(message));
    said.tell(parts);
    this.saids.push(said);
    this.answer.append(said.element);
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
    this.usage = usage;
    this.#settle(status, word(STATUSES, status));
    this.figures.textContent = figuresOf(usage, seconds, events);
    if (this.answer.childElementCount === 0 && result !== null) {
      this.answer.append(el("pre", "result", pretty(result)));
    }
    this.#end();
    this.controls.announce(`Answer ${word(STATUSES, status).toLowerCase()}`);
  }

  /** Nothing more will come. */
  #end() {
    this.isOver = true;
    // Now, not with the next frame: who reads that it is completed finds all of it.
    this.flush();
    this.waiting.clear();
    this.copy.hidden = !this.#answers.some(({ text }) => text !== "");
    this.retry.hidden = this.edit.hidden = false;
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
      if (agent === "root") this.#answers.push(message);
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
