/** The runs of a server: by status, tenant, agent, code and time, the newest first. */

import { byId, duration, el } from "./dom.js";
import { costOf, tokensOf } from "./spent.js";
import { addressOf } from "./where.js";

/** @typedef {import("./looked.js").Tools} Tools */

/**
 * @typedef {object} Listed
 * @property {string} tenant_id
 * @property {string} run_id
 * @property {string} agent
 * @property {string} message
 * @property {number} created_at UTC, seconds.
 * @property {number | null} ended_at
 * @property {string} status
 * @property {string | null} code
 * @property {any} usage
 * @property {{approvals: number, questions: number}} waiting
 */

/** @type {Record<string, string>} */
const STATUSES = {
  initializing: "starting",
  running: "running",
  waiting_for_input: "waits for an answer",
  waiting_for_approval: "waits for approval",
  completed: "completed",
  error: "failed",
  cancelled: "cancelled",
};

/** A run's status, in words. @param {string} status */
export const wordOf = (status) => STATUSES[status] ?? status;

export class Runs {
  #form = byId("filters", HTMLFormElement);
  #list = byId("list", HTMLElement);
  #hint = byId("runs-none", HTMLElement);
  #more = byId("more", HTMLButtonElement);
  #tools;
  /** @type {Map<string, {told: string, item: HTMLElement}>} What is shown, by its address. */ #items = new Map();
  /** @type {Listed[]} */ #all = [];
  /** @type {string | null} Where the runs behind these begin. */ #next = null;
  /** Which asking is the newest: an answer to an earlier one comes too late. */
  #asked = 0;
  #marked = "";

  /** @param {Tools} tools */
  constructor(tools) {
    this.#tools = tools;
    this.#form.addEventListener("input", () => this.#changed());
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#more.addEventListener("click", () => this.#showMore());
  }

  /** Take the filters that an address names. @param {URLSearchParams} query */
  restore(query) {
    for (const field of this.#fields()) field.value = query.get(field.name) ?? "";
    this.#showBetween();
    // On a phone they would leave no room for the runs.
    byId("which", HTMLDetailsElement).open = query.size > 0 || matchMedia("(min-width: 60rem)").matches;
  }

  /** Which run is looked at. @param {string} address */
  mark(address) {
    this.#marked = address;
    for (const [at, { item }] of this.#items) item.toggleAttribute("data-marked", at === address);
  }

  /** Ask for the newest of them; those that were asked for before stay behind them. */
  async refresh() {
    const asked = ++this.#asked;
    const { items, next } = await this.#tools.load(`operator/runs?${this.#query()}`);
    if (asked !== this.#asked) return;
    const oldest = items.at(-1)?.created_at ?? Infinity;
    const known = new Set(items.map(addressFor));
    const isWhole = next === null;
    const earlier = isWhole ? [] : this.#all.filter((one) => one.created_at <= oldest && !known.has(addressFor(one)));
    if (earlier.length === 0) this.#next = next;
    this.#all = [...items, ...earlier];
    this.#draw();
  }

  async #showMore() {
    const asked = ++this.#asked;
    try {
      const { items, next } = await this.#tools.load(`operator/runs?${this.#query()}&before=${encodeURIComponent(this.#next ?? "")}`);
      if (asked !== this.#asked) return;
      const known = new Set(this.#all.map(addressFor));
      this.#all = [...this.#all, ...items.filter((/** @type {Listed} */ one) => !known.has(addressFor(one)))];
      this.#next = next;
      this.#draw();
    } catch (error) {
      this.#tools.notify(/** @type {Error} */ (error));
    }
  }

  /** A filter was changed: the address says so, and other runs are asked for. */
  async #changed() {
    this.#showBetween();
    const chosen = new URLSearchParams();
    for (const { name, value } of this.#fields()) if (value.trim() !== "") chosen.set(name, value.trim());
    history.replaceState(null, "", chosen.size > 0 ? `#/runs?${chosen}` : "#/runs");
    byId("back", HTMLAnchorElement).href = location.hash;
    this.#all = [];
    try {
      await this.refresh();
    } catch (error) {
      this.#tools.notify(/** @type {Error} */ (error));
    }
  }

  #fields() {
    return /** @type {(HTMLInputElement | HTMLSelectElement)[]} */ ([...this.#form.querySelectorAll("input, select")]);
  }

  /** @param {string} name */
  #value(name) {
    return this.#fields().find((field) => field.name === name)?.value.trim() ?? "";
  }

  #showBetween() {
    const isBetween = this.#value("time") === "between";
    for (const label of this.#form.querySelectorAll(".between")) /** @type {HTMLElement} */ (label).hidden = !isBetween;
  }

  #query() {
    const query = new URLSearchParams({ limit: "50" });
    for (const name of ["status", "tenant", "agent", "code"]) if (this.#value(name)) query.set(name, this.#value(name));
    const time = this.#value("time");
    if (Number(time) > 0) query.set("since", String(Math.floor(Date.now() / 1000) - Number(time)));
    for (const name of time === "between" ? ["since", "until"] : []) {
      const at = Date.parse(this.#value(name)) / 1000;
      // To the end of the minute that was chosen.
      if (!Number.isNaN(at)) query.set(name, String(name === "until" ? at + 59.999 : at));
    }
    return query;
  }

  #draw() {
    const isFiltered = this.#fields().some(({ value }) => value !== "");
    this.#hint.textContent = this.#all.length > 0 ? "" : this.#next !== null ? "None of the newest: look at earlier ones." : isFiltered ? "No run is like this." : "Nothing has run yet.";
    this.#more.hidden = this.#next === null;
    const shown = new Map(this.#all.map((one) => [addressFor(one), this.#item(one)]));
    this.#items = shown;
    // Only where something else is to be seen: the keyboard may be in it.
    const items = [...shown.values()].map(({ item }) => item);
    if (items.length !== this.#list.childElementCount || items.some((item, place) => item !== this.#list.children[place])) {
      this.#list.replaceChildren(...items);
    }
    this.mark(this.#marked);
  }

  /** @param {Listed} one */
  #item(one) {
    const address = addressFor(one);
    const told = JSON.stringify(one);
    const before = this.#items.get(address);
    if (before?.told === told) return before;
    const link = linkTo(one);
    if (before !== undefined) {
      // In the same place: it may have the keyboard.
      before.item.firstElementChild?.replaceChildren(...link.childNodes);
      before.item.dataset.status = one.status;
      return { told, item: before.item };
    }
    const item = el("li", "", link);
    item.dataset.status = one.status;
    return { told, item };
  }
}

/** @param {Listed} one */
function addressFor({ tenant_id, run_id }) {
  return addressOf("run", tenant_id, run_id);
}

/** @param {Listed} one */
function linkTo(one) {
  const { message, tenant_id, agent, created_at, ended_at, status, code, usage } = one;
  const said = el("strong", "", message || "Without words");
  said.dir = "auto";
  const seconds = ended_at === null ? "" : duration(ended_at - created_at);
  const spent = [tokensOf(usage) > 0 ? `${tokensOf(usage)} tokens` : "", costOf(usage)];
  const facts = [tenant_id, agent, new Date(created_at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" })];
  const how = [code === null ? wordOf(status) : `${wordOf(status)}: ${code.replaceAll("_", " ")}`, seconds, ...spent];
  const link = el("a", "", said, el("small", "how", together(how)), el("small", "", together(facts)));
  link.href = addressFor(one);
  return link;
}

/** @param {string[]} texts */
const together = (texts) => texts.filter((text) => text !== "").join(" · ");
