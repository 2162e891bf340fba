/** What all runs wait for: approvals and questions, answered here. */

import { Question } from "./asking.js";
import { Call } from "./call.js";
import { byId, el } from "./dom.js";
import { addressOf } from "./where.js";

/** @typedef {import("./looked.js").Tools} Tools */

/**
 * @typedef {object} Asked
 * @property {"approval" | "question"} kind
 * @property {string} tenant_id
 * @property {string} run_id
 * @property {string} agent
 * @property {string} call_id
 * @property {string} request_id
 * @property {string} tool_name
 * @property {number} since UTC, seconds.
 */

export class Inbox {
  #list = byId("asked", HTMLElement);
  #hint = byId("inbox-none", HTMLElement);
  #tools;
  /** @type {Map<string, HTMLElement>} */ #items = new Map();

  /** @param {Tools} tools */
  constructor(tools) {
    this.#tools = tools;
  }

  /** Show what there is; what is there already stays, with what was written into it. @param {Asked[]} asked */
  show(asked) {
    const shown = new Map(asked.map((one) => {
      const key = JSON.stringify([one.tenant_id, one.run_id, one.kind, one.call_id, one.request_id]);
      return [key, this.#items.get(key) ?? this.#item(one)];
    }));
    for (const [key, item] of this.#items) if (!shown.has(key)) item.remove();
    for (const [key, item] of shown) if (!this.#items.has(key)) this.#list.append(item);
    this.#items = shown;
    this.#hint.textContent = shown.size > 0 ? "" : "Nothing waits for a person.";
  }

  /** @param {Asked} one */
  #item(one) {
    const controls = this.#controls(one);
    const asked = one.kind === "approval" ? new Call(one.call_id, one.tool_name, controls) : new Question(one, controls);
    if (asked instanceof Call) asked.ask(one);
    const link = el("a", "", "Show the run");
    link.href = addressOf("run", one.tenant_id, one.run_id);
    const since = new Date(one.since * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    return el("li", "", el("p", "of", `${one.tenant_id} · ${one.agent} · since ${since} · `, link), asked.element);
  }

  /** @param {Asked} one @returns {import("./conversation.js").Controls} */
  #controls({ tenant_id, run_id }) {
    const { load, look, announce } = this.#tools;
    const act = async (/** @type {string} */ name, /** @type {object} */ body) => {
      try {
        await load(`runs/${encodeURIComponent(run_id)}/${name}?${new URLSearchParams({ tenant: tenant_id })}`, { method: "POST", body });
        announce("Taken");
        look();
        return null;
      } catch (error) {
        return /** @type {Error} */ (error).message;
      }
    };
    return {
      approve: (call_id, args) => act("approve", { call_id, arguments: args }),
      deny: (call_id, reason) => act("deny", { call_id, reason }),
      cancelTool: (call_id) => act("cancel_tool", { call_id }),
      answer: (request_id, text) => act("answer", { request_id, text }),
      dismiss: (request_id) => act("dismiss", { request_id }),
      inspect() {},
      retry() {},
      edit() {},
      announce,
      settled() {},
    };
  }
}
