/**
 * A run's events as a page has them: where it was opened late, those of its past are fewer, until
 * somebody wants to see each of them.
 */

/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */
/** @typedef {import("./flowtrio.js").Client} Client */

export class Events {
  /** @type {AgentEvent[]} In order. */ all = [];
  /** The event behind the last of those that are missing. */ #behind = 0;
  #id;
  #open;

  /**
   * @param {string} [id] The run.
   * @param {(() => Client) | null} [open] Makes a client that can read it, and follows nothing yet;
   *   where there is none, what is here is all that there is.
   */
  constructor(id = "", open = null) {
    this.#id = id;
    this.#open = open;
  }

  /** Whether each is here that can be had. */
  get isWhole() {
    return this.#behind === 0;
  }

  /** @param {AgentEvent} event */
  add(event) {
    const last = this.all.at(-1)?.seq ?? -1;
    if (this.#open !== null && event.seq !== last + 1) this.#behind = event.seq;
    this.all.push(event);
  }

  /** Read those that are missing; they are asked for once. */
  async complete() {
    const client = this.#open?.();
    if (client === undefined) return;
    // Who is not let in is asked for his token elsewhere.
    client.addEventListener("state", () => client.state === "unauthorized" && client.close());
    /** @type {AgentEvent[]} */
    const past = [];
    try {
      for await (const event of client.resume(this.#id)) {
        if (event.seq >= this.#behind) break;
        past.push(event);
      }
      if (past.length < this.#behind) throw new Error("The log of this run could not be read.");
      this.all = past.concat(this.all.filter(({ seq }) => seq >= this.#behind));
    } finally {
      this.#behind = 0;
      client.close();
    }
  }
}
