/**
 * A run as lanes of time: one for the run itself, one for each agent's model, for each tool, for
 * each nested agent, and for the person who is asked, or says something meanwhile. Folded from the
 * events, without the page.
 */

/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */

/**
 * @typedef {object} Bar
 * @property {string} label
 * @property {number} start Seconds since the run's start.
 * @property {number | null} end Null while it goes on.
 * @property {string} outcome `running` while it goes on.
 * @property {number} seq Of the event that began it.
 * @property {number} row Where bars of one lane overlap: which of its rows.
 * @property {number[]} marks Moments in it, in seconds: reports of progress.
 */

/**
 * @typedef {object} Lane
 * @property {string} key
 * @property {string} label
 * @property {"run" | "model" | "tool" | "agent" | "person"} kind
 * @property {number} depth How deeply its agent is nested.
 * @property {Bar[]} bars
 * @property {number} rows
 */

export class Lanes {
  /** @type {Lane[]} In the order in which they are shown. */
  lanes = [];
  /** The run's start, by the server's clock. @type {number | null} */
  start = null;
  /** Seconds from the start to the newest event. */
  now = 0;
  isOver = false;
  /** @type {Map<string, Bar>} What goes on. */ #open = new Map();

  /** @param {AgentEvent} event */
  add(event) {
    this.start ??= event.timestamp;
    this.now = Math.max(this.now, event.timestamp - this.start);
    const { type, data } = event;
    const [call, message] = [`call ${data.call_id}`, `message ${data.message_id}`];
    switch (type) {
      case "state_change":
        return this.#onStatus(event);
      case "message_chunk":
      case "reasoning_chunk":
      case "message_part":
      case "tool_call_args":
        return this.#begin(message, event, "model", "model");
      case "message_reset":
        return this.#end(message, "error");
      case "message_complete":
        return this.#end(message, ENDINGS[data.finish_reason] ?? "ok");
      case "approval_required":
        return this.#begin(`${call} asked`, event, "person", data.tool_name);
      case "tool_call_start":
        this.#end(`${call} asked`, "ok");
        return this.#begin(call, event, "tool", data.tool_name);
      case "tool_progress":
        this.#open.get(call)?.marks.push(this.now);
        return;
      case "tool_call_end":
        this.#end(`${call} asked`, data.outcome);
        return this.#end(call, data.outcome);
      case "agent_start":
        return this.#begin(`agent ${data.agent}`, event, "agent", nameOf(data.agent));
      case "agent_end":
        return this.#end(`agent ${data.agent}`, data.outcome);
      case "input_required":
        return this.#begin(`input ${data.request_id}`, event, "person", "question");
      case "input_resolved":
        return this.#end(`input ${data.request_id}`, data.outcome === "answered" ? "ok" : data.outcome);
      case "user_message":
        // It takes no time; where it was taken is what counts.
        this.#begin("said", event, "person", "said");
        return this.#end("said", "ok");
      case "done":
        this.isOver = true;
    }
  }

  /** @param {AgentEvent} event */
  #onStatus(event) {
    const { new_status: status } = event.data;
    const before = this.#open.get("status");
    // A new reason alone is no new bar.
    if (before?.label === status) return;
    this.#end("status", before?.label ?? "ok");
    this.#begin("status", event, "run", status);
    if (TERMINAL.has(status)) this.#end("status", status);
  }

  /**
   * @param {string} key
   * @param {AgentEvent} event
   * @param {Lane["kind"]} kind
   * @param {string} label
   */
  #begin(key, event, kind, label) {
    if (this.#open.has(key)) return;
    const lane = this.#lane(kind, event.agent, label);
    const taken = new Set(lane.bars.filter((bar) => bar.end === null).map((bar) => bar.row));
    let row = 0;
    while (taken.has(row)) row += 1;
    lane.rows = Math.max(lane.rows, row + 1);
    const bar = { label, start: this.now, end: null, outcome: "running", seq: event.seq, row, marks: [] };
    lane.bars.push(bar);
    this.#open.set(key, bar);
  }

  /** @param {string} key @param {string} outcome */
  #end(key, outcome) {
    const bar = this.#open.get(key);
    if (bar === undefined) return;
    bar.end = this.now;
    bar.outcome = outcome;
    this.#open.delete(key);
  }

  /** @param {Lane["kind"]} kind @param {string} agent @param {string} label */
  #lane(kind, agent, label) {
    const path = kind === "run" || kind === "person" ? "root" : agent;
    const own = { run: "run", model: "model", person: "you", agent: "", tool: label }[kind];
    const key = `${path} ${kind} ${own}`;
    let lane = this.lanes.find((lane) => lane.key === key);
    if (lane === undefined) {
      const depth = path.split("/").length - 1;
      lane = { key, label: own || nameOf(path), kind, depth, bars: [], rows: 1 };
      this.lanes.splice(this.#placeFor(path, kind), 0, lane);
    }
    return lane;
  }

  /** Behind the lanes of the same agent, and of those it called. @param {string} path @param {string} kind */
  #placeFor(path, kind) {
    if (kind === "run") return 0;
    if (kind === "person") return this.lanes.length;
    const before = [...path.matchAll(/\/|$/g)].map(({ index }) => path.slice(0, index)).reverse();
    for (const above of before) {
      const at = this.lanes.findLastIndex(
        ({ key, kind }) => kind !== "person" && (key.startsWith(`${above} `) || key.startsWith(`${above}/`)),
      );
      if (at >= 0) return at + 1;
    }
    return this.lanes.findLastIndex(({ kind }) => kind !== "person") + 1;
  }
}

/** @type {Record<string, string>} */
const ENDINGS = { cancelled: "cancelled", error: "error", content_filter: "error", length: "timeout" };
const TERMINAL = new Set(["completed", "error", "cancelled"]);

/** @param {string} path */
function nameOf(path) {
  return path.slice(path.lastIndexOf("/") + 1);
}
