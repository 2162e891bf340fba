/** One call of a tool, as a card: what it is called with, how far it is, how it ended. */

import { ArgumentsEditor, settleAsking } from "./asking.js";
import { brief, briefArguments, button, duration, el, pretty } from "./dom.js";

/** @typedef {import("./conversation.js").Controls} Controls */

/** How calls and agents end, in words. */
export const OUTCOMES = {
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
export const word = (words, key) => words[key] ?? key;

/** One call of a tool. */
export class Call {
  /** @type {string | null} Its arguments, as they were told last. */ #given = null;

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
    // Where there is no room for the arguments above, they stand for the word.
    this.gist = el("span", "gist");
    const summary = el("summary", "", el("span", "word", "Details"), this.gist);
    this.details = el("details", "facts", summary, this.facts);
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
    const given = JSON.stringify(values);
    if (this.#given === given) return;
    this.fact(this.#given === null ? "Arguments" : "Edited to", values);
    this.#given = given;
    this.arguments.textContent = this.gist.textContent = briefArguments(values);
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
    const settle = (/** @type {() => Promise<string | null>} */ act) => () => {
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
