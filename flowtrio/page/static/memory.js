/** What is remembered: of this tab's conversation until it is closed, of what a person likes for good. */

import { newId } from "./flowtrio.js";

/**
 * What is remembered of a run.
 *
 * @typedef {object} Remembered
 * @property {string} id
 * @property {string} message
 * @property {boolean} isStarted Whether the server is known to have it.
 * @property {[code: string, why: string]} [refused] Where the server did not take it.
 * @property {number} [files] That were sent with it from this page.
 */

const KEY = `flowtrio ${location.pathname}`;
/** Runs of a conversation that are remembered. */
const MOST_RUNS = 30;

/** The tab's memory; where a browser allows none, it lasts as long as the page. */
export const memory = {
  /** @type {{sessionId: string, token: string | null, runs: Remembered[], forgotten: number, draft: string}} */
  value: { sessionId: newId(), token: null, runs: [], forgotten: 0, draft: "" },
  load() {
    try {
      this.value = { ...this.value, ...JSON.parse(sessionStorage.getItem(KEY) ?? "{}") };
    } catch {
      // Then it is a new conversation.
    }
  },
  save() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.value));
    } catch {
      // Then a reload forgets.
    }
  },
  /** Begin another conversation. */
  startAnew() {
    this.value = { ...this.value, sessionId: newId(), runs: [], forgotten: 0 };
    this.save();
  },
  /** Look at another conversation. @param {string} sessionId @param {Remembered[]} runs @param {number} earlier Turns of it that are in no run. */
  open(sessionId, runs, earlier) {
    const forgotten = earlier + Math.max(0, runs.length - MOST_RUNS);
    this.value = { ...this.value, sessionId, runs: runs.slice(-MOST_RUNS), forgotten };
    this.save();
  },
  /**
   * The server has these runs of the conversation: some may have been started on another page. What is
   * before all that is remembered stays forgotten.
   *
   * @param {Remembered[]} runs
   */
  meet(runs) {
    const mine = this.value.runs;
    const isMine = new Set(mine.map(({ id }) => id));
    const first = runs.findIndex(({ id }) => isMine.has(id));
    if (first < 0) return;
    const there = runs.slice(first);
    const isThere = new Set(there.map(({ id }) => id));
    const others = mine.filter(({ id }) => !isThere.has(id));
    const all = [...others.filter((one) => one.isStarted), ...there, ...others.filter((one) => !one.isStarted)];
    this.value.forgotten += Math.max(0, all.length - MOST_RUNS);
    this.value.runs = all.slice(-MOST_RUNS);
    this.save();
  },
  /** Go on with a conversation that has the first turns of this one. @param {string} sessionId @param {number} left */
  branch(sessionId, left) {
    const { runs, forgotten } = this.value;
    this.value = { ...this.value, sessionId, runs: runs.slice(0, Math.max(0, runs.length - left)), forgotten };
    this.save();
  },
  /** A run was started. @param {Remembered} run */
  add(run) {
    const runs = [...this.value.runs, run];
    this.value.forgotten += Math.max(0, runs.length - MOST_RUNS);
    this.value.runs = runs.slice(-MOST_RUNS);
    this.save();
  },
};
