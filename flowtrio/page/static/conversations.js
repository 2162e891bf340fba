/**
 * The conversations that there are: found by their words, gone on with, given a name, deleted.
 *
 * The server knows what they are called: as a person said, or the agent, or by what was said first.
 */

import { button, byId, el } from "./dom.js";

/**
 * @typedef {object} Listed
 * @property {string} session_id
 * @property {string} message What was said first.
 * @property {string | null} title
 * @property {{session_id: string, turn: number} | null} branched_from
 * @property {number} updated_at UTC, seconds.
 * @property {number} runs
 * @property {string | null} status Of its last run; null while that goes on.
 */

/**
 * @typedef {object} Wired
 * @property {(path: string, options?: {method?: string, body?: unknown}) => Promise<any>} load Asks the server; throws what it refuses.
 * @property {(id: string) => void} open Goes on with one.
 * @property {(id: string) => void} deleted Told that one is gone.
 * @property {(error: Error) => void} notify
 */

export class Conversations {
  #dialog = byId("conversations", HTMLDialogElement);
  #search = byId("search", HTMLInputElement);
  #list = byId("found", HTMLElement);
  #hint = byId("found-none", HTMLElement);
  #wired;
  /** @type {Listed[]} */ #all = [];
  #current = "";

  /** @param {Wired} wired */
  constructor(wired) {
    this.#wired = wired;
    this.#search.addEventListener("input", () => this.#draw());
    byId("close-list", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
  }

  /** @param {string} current The one that is looked at. */
  async show(current) {
    this.#current = current;
    this.#search.value = "";
    /** @type {Listed[]} */
    const all = [];
    try {
      // Those of some thousands of bytes a page: all of them are searched.
      for (let next = ""; next !== null; ) {
        const before = next === "" ? "" : `&before=${encodeURIComponent(next)}`;
        const page = await this.#wired.load(`sessions?limit=200${before}`);
        all.push(...page.items);
        next = page.next;
      }
    } catch (error) {
      return this.#wired.notify(/** @type {Error} */ (error));
    }
    this.#all = all;
    this.#draw();
    this.#dialog.showModal();
  }

  #draw() {
    const wanted = this.#search.value.trim().toLocaleLowerCase();
    const found = this.#all.filter((one) => `${nameOf(one)}\n${one.message}`.toLocaleLowerCase().includes(wanted));
    this.#list.replaceChildren(...found.map((one) => this.#item(one)));
    this.#hint.hidden = found.length > 0;
    this.#hint.textContent = this.#all.length === 0 ? "There are none yet." : "None has these words.";
  }

  /** @param {Listed} one */
  #item(one) {
    const { session_id: id, updated_at, status, branched_from: from } = one;
    const name = nameOf(one);
    const origin = this.#all.find(({ session_id }) => session_id === from?.session_id);
    const when = new Date(updated_at * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    const open = button("", "quiet open", () => {
      this.#dialog.close();
      this.#wired.open(id);
    });
    const words = el("strong", "", name);
    words.dir = "auto";
    open.append(words, el("small", "", status === null ? `${when} · running` : when));
    if (origin !== undefined) open.append(el("small", "", `Goes another way on from: ${nameOf(origin)}`));
    if (id === this.#current) open.setAttribute("aria-current", "true");
    const rename = button("Rename", "quiet", () => this.#rename(item, id, name));
    rename.setAttribute("aria-label", `Rename ${name}`);
    const remove = button("Delete", "quiet", () => {
      // Once more, since nothing brings it back.
      if (remove.textContent === "Delete") remove.textContent = "Delete for good";
      else this.#delete(id);
    });
    remove.setAttribute("aria-description", name);
    const item = el("li", "", open, rename, remove);
    return item;
  }

  /** @param {HTMLElement} item @param {string} id @param {string} name */
  #rename(item, id, name) {
    const field = el("input");
    field.value = name;
    field.maxLength = 120;
    field.setAttribute("aria-label", `Name of ${name}`);
    const form = el("form", "actions", field, el("button", "primary", "Save"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#save(id, field.value.trim());
    });
    item.replaceChildren(form);
    field.select();
  }

  /** @param {string} id @param {string} title */
  async #save(id, title) {
    try {
      const told = await this.#wired.load(`sessions/${encodeURIComponent(id)}`, { method: "PATCH", body: { title: title || null } });
      this.#all = this.#all.map((one) => (one.session_id === id ? { ...one, title: told.title } : one));
    } catch (error) {
      this.#wired.notify(/** @type {Error} */ (error));
    }
    this.#draw();
  }

  /** @param {string} id */
  async #delete(id) {
    try {
      await this.#wired.load(`sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
    } catch (error) {
      return this.#wired.notify(/** @type {Error} */ (error));
    }
    this.#all = this.#all.filter(({ session_id }) => session_id !== id);
    this.#draw();
    this.#wired.deleted(id);
  }
}

/** @param {Listed} one */
const nameOf = ({ title }) => title || "Without words";
