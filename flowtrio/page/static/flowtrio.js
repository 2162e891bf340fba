/**
 * flowtrio.js: a client for flowtrio's servers, for browsers.
 *
 * A run is a log of events, numbered by `seq` from 0 without gaps, and ended by one `done`. The
 * server keeps the log, so a connection is only a place from which it is read: whenever one is lost,
 * the client connects again, tells the last `seq` that it saw, and drops what it knows already. It
 * chooses the ids of its runs itself: a message that was sent twice, since nobody knows whether the
 * first one arrived, starts one run. Each frame names the event before it, so that one which was
 * lost on the way is noticed and asked for, also in a mode that does not show every `seq`.
 *
 *     const client = new Client();
 *     for await (const event of client.send("Book a flight to Paris")) {
 *       if (event.type === "message_chunk") show(event.data.chunk);
 *     }
 *
 * It speaks WebSocket, all runs on one connection; where the way to the server does not let a
 * WebSocket through, it reads Server-Sent Events instead.
 *
 * @module flowtrio
 */

/**
 * A fact about a run.
 *
 * @typedef {object} AgentEvent
 * @property {string} type What kind of fact: `message_chunk`, `tool_call_start`, `done`, …
 * @property {Record<string, any>} data The fact itself; its keys depend on the type.
 * @property {number} seq Its place in the run's log, from 0.
 * @property {string} run_id The run.
 * @property {string} agent Path of the agent that emitted it: `root`, `root/researcher`.
 * @property {number} timestamp UTC, seconds; for people to read, never for order.
 */

/**
 * Which events a reader sees.
 *
 * @typedef {"events" | "updates" | "messages" | "values"} Mode
 */

/**
 * What a client's connection is doing. `waiting`: it was lost, and will be tried again;
 * `unauthorized`: the server wants a (different) token, see {@link Client#token}.
 *
 * @typedef {"idle" | "connecting" | "open" | "waiting" | "unauthorized" | "closed"} State
 */

/**
 * @typedef {object} RunOptions
 * @property {string} [runId] The run's id, up to 64 URL-safe characters; a fresh one otherwise.
 * @property {string | null} [sessionId] The conversation that the message belongs to.
 * @property {Mode} [mode] Which events to see; `events` (all) otherwise.
 * @property {object[]} [parts] Images and files, as the command `message` has them.
 */

const SUBPROTOCOLS = ["flowtrio.batch.v1", "flowtrio.v1"];
/** In the query, for a server to put into each frame which one is `after`. */
const LINKED = "linked=1";
const TOKEN_PROTOCOL = "flowtrio.token.";
/** What a subprotocol's name may hold (RFC 9110, section 5.6.2: a token). */
const PROTOCOL_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** Milliseconds before the first attempt to come back; doubled by each that fails. */
const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 15_000;
/** Milliseconds that a connection has to live to count as a good one. */
const STEADY = 5_000;
/**
 * Milliseconds without a word after which a WebSocket's server is asked whether it is there; in an
 * answer of Server-Sent Events it says so by itself, at least this often.
 */
const SILENCE = 15_000;
/** Milliseconds that an answer may take, be it to a request, a handshake or that question. */
const ANSWER = 10_000;
/** Bytes that go out in a millisecond at least. */
const SLOWEST = 30;
/** Milliseconds by which a timer is too late for a page that was awake. */
const ASLEEP = 5_000;
/**
 * So many WebSockets in a row have to fail while plain HTTP works, or to fall silent, before SSE
 * takes their place.
 */
const FAILURES_BEFORE_SSE = 2;

const JSON_TYPE = { "Content-Type": "application/json" };

/** The close code of a message that is too big (RFC 6455, section 7.4.1). */
const TOO_BIG = 1009;

/** The server refused a command. */
export class RejectedError extends Error {
  /**
   * @param {string} code What kind: `session_busy`, `unknown_run`, `replay_gap`, …
   * @param {string} message The server's words.
   */
  constructor(code, message) {
    super(message);
    this.name = "RejectedError";
    this.code = code;
  }
}

/**
 * Notices that a connection has fallen silent. Where half of it is gone, nobody tells: a phone that
 * changed its network, a proxy that forgot it.
 */
class Watch {
  #heardAt = Date.now();
  #isHeard = true;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #lose;
  #ask;

  /**
   * @param {() => void} lose Called once, when it is silent for too long.
   * @param {(() => void) | null} [ask] Asks the other side for a word; else it speaks by itself.
   */
  constructor(lose, ask = null) {
    this.#lose = lose;
    this.#ask = ask;
    this.#rest();
  }

  heard() {
    this.#heardAt = Date.now();
    this.#isHeard = true;
  }

  /** Look now: somebody came back, or the network did. */
  look() {
    if (this.#ask !== null) this.#inquire(this.#ask);
    else if (Date.now() - this.#heardAt > SILENCE + ASLEEP) this.#lose();
  }

  end() {
    clearTimeout(this.#timer);
  }

  #rest() {
    const longest = this.#ask === null ? SILENCE + ANSWER : SILENCE;
    const left = this.#heardAt + longest - Date.now();
    if (left > 0) this.#wait(left, () => this.#rest());
    else if (this.#ask === null) this.#lose();
    else this.#inquire(this.#ask);
  }

  /** @param {() => void} ask @param {boolean} [isAgain] */
  #inquire(ask, isAgain = false) {
    this.#isHeard = false;
    const due = Date.now() + ANSWER;
    ask();
    this.#wait(ANSWER, () => {
      if (this.#isHeard) this.#rest();
      // A page that slept may not have taken yet what came meanwhile.
      else if (!isAgain && Date.now() - due > ASLEEP) this.#inquire(ask, true);
      else this.#lose();
    });
  }

  /** @param {number} pause @param {() => void} then */
  #wait(pause, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, pause);
  }
}

/** An id for a run or a conversation that nobody else has: 32 hexadecimal digits. */
export function newId() {
  // crypto.randomUUID is missing on a page that came by plain HTTP from another machine.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * One run: an async iterable of its events, in order, each once. It ends after `done`.
 *
 * Iterating throws {@link RejectedError} where the server refuses to start or to replay it. Leaving
 * the loop early forgets the run on this side only; {@link Run#cancel} ends it.
 *
 * @implements {AsyncIterable<AgentEvent>}
 */
export class Run {
  /** The newest `seq` that was received; -1 before the first. */
  lastSeq = -1;
  /** Whether nothing more will come. */
  isOver = false;
  /** Whether the server has it, for certain: then it is resumed, and not started again. */
  hasBegun = false;
  /** @type {AgentEvent[]} */ #ready = [];
  /** @type {Error | null} */ #error = null;
  /** @type {(() => void) | null} */ #wake = null;
  #client;

  /**
   * @param {Client} client
   * @param {string} id
   * @param {string | null} message Null to follow a run that was started before.
   * @param {{sessionId: string | null, mode: Mode, after: number, parts?: object[], snapshot?: boolean | "log"}} options
   */
  constructor(client, id, message, { sessionId, mode, after, parts = [], snapshot = false }) {
    this.#client = client;
    /** The run's id. */
    this.id = id;
    this.message = message;
    this.parts = parts;
    this.sessionId = sessionId;
    this.mode = mode;
    /** Whether its first event is to stand for all before it, or to bring it as a compacted log. */
    this.snapshot = snapshot;
    this.lastSeq = after;
  }

  /** @returns {AsyncGenerator<AgentEvent, void, void>} */
  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#ready.length > 0) {
          const batch = this.#ready;
          this.#ready = [];
          yield* batch;
        }
        if (this.#error !== null) throw this.#error;
        if (this.isOver) return;
        await new Promise((resolve) => (this.#wake = () => resolve(undefined)));
      }
    } finally {
      this.#client._forget(this);
    }
  }

  /** Follow it no more: a loop over it ends behind what has come. The run goes on. */
  leave() {
    this.#client._forget(this);
  }

  /** End the run. @param {string} [reason] Told in `done`. */
  cancel(reason) {
    return this.#client._control(this, { type: "cancel", reason });
  }

  /** End one call. @param {string} callId */
  cancelTool(callId) {
    return this.#client._control(this, { type: "cancel_tool", call_id: callId });
  }

  /**
   * Let a call begin that waits for a person.
   *
   * @param {string} callId
   * @param {object} [args] Instead of its own; what does not fit the tool is rejected.
   */
  approve(callId, args) {
    return this.#client._control(this, { type: "approve", call_id: callId, arguments: args });
  }

  /** Refuse a call that waits for a person. @param {string} callId @param {string} [reason] */
  deny(callId, reason) {
    return this.#client._control(this, { type: "deny", call_id: callId, reason });
  }

  /**
   * Answer the agent's question.
   *
   * @param {string} requestId
   * @param {unknown} value A text; where the question has a schema, JSON. What does not fit is rejected.
   */
  answer(requestId, value) {
    return this.#client._control(this, { type: "answer", request_id: requestId, text: value });
  }

  /** Decline to answer it. @param {string} requestId @param {string} [reason] */
  dismiss(requestId, reason) {
    return this.#client._control(this, { type: "dismiss", request_id: requestId, reason });
  }

  /**
   * Say something to the model before its next reply; rejected where none follows.
   *
   * @param {string} message
   * @param {{interrupt?: boolean, parts?: object[]}} [options] `interrupt` cuts the reply that is
   *   being written.
   */
  post(message, { interrupt = false, parts = [] } = {}) {
    // Sent again where its reply was lost, it is not said again.
    const said = { type: "post", message, interrupt, parts, post_id: newId() };
    return this.#client._control(this, said);
  }

  /**
   * Take an event, unless it was there before.
   *
   * @param {AgentEvent & {after?: number}} frame With the `seq` of the one before it, as far as the
   *   mode shows them; a server that does not know of links leaves it out.
   * @returns {boolean} False where events before this one are missing: the log is to be asked again.
   */
  _take({ after, ...event }) {
    this.hasBegun = true;
    if (this.isOver || event.seq <= this.lastSeq) return true;
    const before = after ?? (this.mode === "events" ? event.seq - 1 : -1);
    if (before > this.lastSeq) return false;
    const isCompacted = this.snapshot === "log" && event.data.log !== undefined;
    // Behind events that were still on their way to one that has left: it has parts of them.
    if (isCompacted && this.lastSeq >= 0) return false;
    this.lastSeq = event.seq;
    if (isCompacted) {
      const { log, ...data } = event.data;
      for (const past of log) this.#ready.push({ ...past, run_id: event.run_id });
      event.data = data;
    }
    this.#ready.push(event);
    if (event.type === "done") this.isOver = true;
    this.#wake?.();
    return true;
  }

  /** Nothing more will come. @param {Error | null} [error] Why, if that is a failure. */
  _end(error = null) {
    if (this.isOver) return;
    this.isOver = true;
    this.#error = error;
    this.#wake?.();
  }
}

/**
 * A connection to a server, kept up until {@link Client#close}.
 *
 * It dispatches `state` whenever {@link Client#state} changes.
 */
export class Client extends EventTarget {
  /** @type {State} */ #state = "idle";
  /** @type {string | null} */ #token;
  #refusal = "";
  /** @type {URL} */ #base;
  /** @type {"websocket" | "sse"} */ #transport;
  #isFixed;
  /** In the query of what is asked about runs. */ #whose;
  /** @type {Map<string, Run>} Those that are followed. */ #runs = new Map();
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {Watch | null} Whether that one is alive. */ #watch = null;
  /** @type {(() => void) | null} Leaves the WebSocket that is open, or being opened, at once. */ #drop = null;
  #lastRef = 0;
  /** @type {Map<number, string>} Ids of the runs that are asked for, by `ref`. */
  #asked = new Map();
  /** @type {Map<number, {frame: object, resolve: () => void, reject: (e: Error) => void}>} */
  #controls = new Map();
  /** @type {Map<Run, AbortController | undefined>} Those that are being read as Server-Sent Events. */
  #reading = new Map();
  #attempts = 0;
  #failures = 0;
  /** @type {Set<() => void>} What ends the pauses that are being made. */ #pauses = new Set();
  /** @type {Map<AbortController, Watch>} The requests under way. */ #requests = new Map();
  #hurry = () => this.#onOnline();
  #leave = () => this.#onPageLeft();
  #comeBack = () => this.#lookAgain();

  /**
   * @param {object} [options]
   * @param {string | URL} [options.url] The directory that the server's paths are below; this page's
   *   own otherwise.
   * @param {string | null} [options.token] Where the server wants one.
   * @param {"auto" | "websocket" | "sse"} [options.transport]
   * @param {string | null} [options.tenant] Whose runs they are, for an operator; over SSE only.
   */
  constructor({ url, token = null, tenant = null, transport = tenant === null ? "auto" : "sse" } = {}) {
    super();
    this.#whose = tenant === null ? "" : `&${new URLSearchParams({ tenant })}`;
    this.#base = new URL(url ?? ".", globalThis.document?.baseURI);
    this.#token = token;
    this.#isFixed = transport !== "auto";
    this.#transport = transport === "sse" ? "sse" : "websocket";
    globalThis.addEventListener?.("online", this.#hurry);
    globalThis.addEventListener?.("pagehide", this.#leave);
    globalThis.addEventListener?.("pageshow", this.#comeBack);
    globalThis.document?.addEventListener("visibilitychange", this.#comeBack);
  }

  /** What the connection is doing. @returns {State} */
  get state() {
    return this.#state;
  }

  /** What carries the events. @returns {"websocket" | "sse"} */
  get transport() {
    return this.#transport;
  }

  /** Why the server wants a token, or another one, in its words. */
  get refusal() {
    return this.#refusal;
  }

  /** The token. Setting it while the server wants another one tries again. */
  get token() {
    return this.#token;
  }

  set token(token) {
    this.#token = token;
    if (this.#state === "unauthorized") this.#goOn();
  }

  /** Connect without waiting for the first message. */
  connect() {
    if (this.#state === "idle") this.#goOn();
  }

  /**
   * Start a run.
   *
   * @param {string} message What to say to the agent.
   * @param {RunOptions} [options]
   * @returns {Run}
   */
  send(message, { runId = newId(), sessionId = null, mode = "events", parts = [] } = {}) {
    return this.#follow(new Run(this, runId, message, { sessionId, mode, after: -1, parts }));
  }

  /**
   * Ask the server for what is at an address below its own, as whoever may see it.
   *
   * @param {string} path
   * @param {{method?: string, body?: unknown}} [options] `body` is sent as JSON.
   * @returns {Promise<Blob>}
   * @throws {RejectedError} The server refused it.
   */
  async load(path, { method = "GET", body } = {}) {
    const options = body === undefined ? {} : { body: JSON.stringify(body), headers: JSON_TYPE };
    const [response, request] = await this.#fetch(path, { method, ...options });
    try {
      if (response.ok) return await response.blob();
      // A token may expire while a connection is open that it opened: to come back tells, and asks.
      if (response.status === 401 && this.#state === "open") this.#drop ? this.#drop() : this.#check();
      throw await refusal(response);
    } finally {
      this.#end(request);
    }
  }

  /**
   * Follow a run that was started before.
   *
   * @param {string} runId
   * @param {object} [options]
   * @param {number} [options.after] The last `seq` that is known; -1, the default, replays it all.
   * @param {Mode} [options.mode]
   * @param {boolean | "log"} [options.snapshot] Have all that was said by now in the first event,
   * whose `data.state` it is; or with `"log"` by fewer events, each text as one piece. Not with
   * `after`.
   * @returns {Run}
   */
  resume(runId, { after = -1, mode = "events", snapshot = false } = {}) {
    return this.#follow(new Run(this, runId, null, { sessionId: null, mode, after, snapshot }));
  }

  /** Leave the server. Runs are not cancelled: they may be resumed for a while. */
  close() {
    if (this.#state === "closed") return;
    this.#setState("closed");
    globalThis.removeEventListener?.("online", this.#hurry);
    globalThis.removeEventListener?.("pagehide", this.#leave);
    globalThis.removeEventListener?.("pageshow", this.#comeBack);
    globalThis.document?.removeEventListener("visibilitychange", this.#comeBack);
    this.#abort();
    this.#endPauses();
    this.#watch?.end();
    this.#socket?.close(1000);
    for (const { reject } of this.#controls.values()) reject(new Error("the client was closed"));
    this.#controls.clear();
    for (const run of this.#runs.values()) run._end();
    this.#runs.clear();
  }

  /** @param {Run} run */
  #follow(run) {
    if (this.#state === "closed") throw new Error("the client was closed");
    if (this.#runs.has(run.id)) throw new Error(`run ${run.id} is being followed already`);
    this.#runs.set(run.id, run);
    if (this.#transport === "sse") this.#read(run);
    else if (this.#state === "open") this.#ask(run);
    else this.connect();
    return run;
  }

  /** @param {Run} run */
  _forget(run) {
    if (this.#runs.get(run.id) === run) this.#runs.delete(run.id);
    run._end();
    this.#end(this.#reading.get(run));
  }

  /**
   * Send a command about a run; what was sent in vain is sent again.
   *
   * @param {Run} run
   * @param {{type: string, [key: string]: unknown}} command
   * @returns {Promise<void>}
   * @throws {RejectedError} The server refused it.
   */
  _control(run, command) {
    if (this.#transport === "sse") return this.#post(run, command);
    return new Promise((resolve, reject) => {
      const ref = ++this.#lastRef;
      const frame = { ...command, run_id: run.id, ref };
      this.#controls.set(ref, { frame, resolve, reject });
      if (this.#state === "open") this.#sendFrame(frame);
      else this.connect();
    });
  }

  // Connecting and coming back

  #goOn() {
    if (this.#transport === "sse") {
      this.#setState("connecting");
      for (const run of this.#runs.values()) this.#read(run);
      this.#check();
    } else {
      this.#open();
    }
  }

  #onOnline() {
    // A network that went and came: what looks open may be dead, and would stay so for minutes.
    this.#leaveConnections();
    this.#endPauses();
  }

  /** Somebody sees the page again: what looks open may be dead since long. */
  #lookAgain() {
    if (globalThis.document?.visibilityState === "hidden") return;
    this.#endPauses();
    this.#watch?.look();
    for (const watch of [...this.#requests.values()]) watch.look();
    if (this.#transport === "sse" && this.#reading.size === 0 && this.#state === "open") this.#check();
  }

  #leaveConnections() {
    this.#drop?.();
    // What was being read or sent is tried again.
    this.#abort();
  }

  #abort() {
    for (const request of [...this.#requests.keys()]) request.abort();
  }

  /**
   * A browser may keep a page that was left for its back button, and its connections open with it:
   * to the server it would be a reader for as long.
   */
  #onPageLeft() {
    this.#leaveConnections();
  }

  #open() {
    const offered = [...SUBPROTOCOLS];
    if (this.#token !== null) {
      if (!PROTOCOL_NAME.test(this.#token) && !this.#isFixed) return this.#useSse();
      offered.unshift(TOKEN_PROTOCOL + this.#token);
    }
    this.#setState("connecting");
    const url = new URL(`chat?${LINKED}`, this.#base);
    url.protocol = url.protocol === "https:" || url.protocol === "wss:" ? "wss:" : "ws:";
    const socket = new WebSocket(url, offered);
    let openedAt = 0;
    let unsent = 0;
    const over = (/** @type {number} */ code) => {
      socket.onopen = socket.onmessage = socket.onclose = () => {};
      clearTimeout(opening);
      this.#watch?.end();
      this.#socket = this.#watch = this.#drop = null;
      if (code === TOO_BIG) this.#giveUpLargest();
      if (openedAt && Date.now() - openedAt > STEADY) this.#attempts = 0;
      this.#onLost(openedAt > 0);
    };
    // A closing handshake with somebody who is gone takes a browser a minute: nobody waits for it.
    const drop = (this.#drop = () => {
      over(0);
      socket.close();
    });
    const opening = setTimeout(drop, ANSWER);
    socket.onopen = () => {
      clearTimeout(opening);
      openedAt = Date.now();
      if (this.#state === "closed") return socket.close(1000);
      this.#watch = new Watch(
        () => {
          // It goes through something that eats what is said, or it is too slow: a message is heard
          // of when all of it is there, and of an answer in SSE each piece is.
          this.#failures += 1;
          drop();
        },
        () => {
          // Behind something large the question waits: as long as that goes out, somebody is there.
          const left = socket.bufferedAmount;
          if (left > 0 && (unsent === 0 || left < unsent)) this.#watch?.heard();
          unsent = left;
          this.#sendFrame({ type: "ping", ref: ++this.#lastRef });
        },
      );
      this.#onOpen(socket);
    };
    socket.onmessage = (message) => {
      this.#watch?.heard();
      this.#attempts = 0;
      const value = JSON.parse(message.data);
      for (const frame of Array.isArray(value) ? value : [value]) this.#receive(frame);
    };
    socket.onclose = ({ code }) => over(code);
  }

  /** @param {WebSocket} socket */
  #onOpen(socket) {
    this.#socket = socket;
    this.#asked.clear();
    this.#setState("open");
    for (const run of this.#runs.values()) this.#ask(run);
    for (const { frame } of this.#controls.values()) this.#sendFrame(frame);
  }

  /** What the server does not take would not be taken the next time either. */
  #giveUpLargest() {
    const refused = new RejectedError("too_big", "the message is larger than the server takes");
    /** @type {{size: number, giveUp: () => void}[]} */
    const sent = [];
    const add = (/** @type {object} */ frame, /** @type {() => void} */ giveUp) => {
      sent.push({ size: JSON.stringify(frame).length, giveUp });
    };
    for (const id of this.#asked.values()) {
      const run = this.#runs.get(id);
      if (run === undefined || run.hasBegun) continue;
      add(startOf(run), () => {
        run._end(refused);
        this.#runs.delete(id);
      });
    }
    for (const [ref, { frame, reject }] of this.#controls) {
      add(frame, () => {
        this.#controls.delete(ref);
        reject(refused);
      });
    }
    sent.sort((one, other) => other.size - one.size)[0]?.giveUp();
  }

  /** @param {boolean} wasOpen */
  async #onLost(wasOpen) {
    if (this.#state === "closed") return;
    this.#setState("waiting");
    // A browser does not tell why a handshake failed; a plain request does.
    const status = wasOpen ? 0 : await this.#probe();
    if (status === 401) return this.#setState("unauthorized");
    if (status > 0 && !isForNow(status)) this.#failures += 1;
    if (this.#failures >= FAILURES_BEFORE_SSE && !this.#isFixed) return this.#useSse();
    await this.#pause(this.#attempts++);
    if (this.#state === "waiting") this.#open();
  }

  #useSse() {
    this.#transport = "sse";
    for (const { frame, resolve, reject } of this.#controls.values()) {
      const { run_id, ref, ...command } = /** @type {any} */ (frame);
      const run = this.#runs.get(run_id);
      if (run) this.#post(run, command).then(resolve, reject);
      else reject(new RejectedError("unknown_run", "the run has ended"));
    }
    this.#controls.clear();
    this.#goOn();
  }

  /** The status of a plain request, or 0 where the server cannot be reached. */
  async #probe() {
    try {
      const [response, request] = await this.#fetch("runs/-/events");
      if (response.status === 401) this.#refusal = (await refusal(response)).message;
      this.#end(request);
      return response.status;
    } catch {
      return 0;
    }
  }

  /** @param {number} attempt */
  #pause(attempt) {
    const longest = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** attempt);
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#pauses.delete(end);
        resolve(undefined);
      };
      // Not all at once: a server that starts again has many clients that come back.
      const timer = setTimeout(end, longest * (0.5 + Math.random() / 2));
      this.#pauses.add(end);
    });
  }

  #endPauses() {
    for (const end of [...this.#pauses]) end();
  }

  /** @param {State} state */
  #setState(state) {
    if (this.#state === state || this.#state === "closed") return;
    this.#state = state;
    this.dispatchEvent(new Event("state"));
  }

  // WebSocket

  /** @param {object} frame */
  #sendFrame(frame) {
    this.#socket?.send(JSON.stringify(frame));
  }

  /** Have the server send a run's events. @param {Run} run */
  #ask(run) {
    const ref = ++this.#lastRef;
    this.#asked.set(ref, run.id);
    this.#sendFrame({ ...startOf(run), run_id: run.id, mode: run.mode, ref });
  }

  /** @param {any} frame */
  #receive(frame) {
    const isReply = frame.type === "accepted" || frame.type === "rejected";
    // That a run is accepted is heard also where none of its events comes through; what is heard
    // after a silence, as a ping's answer is, came through.
    if (!isReply || frame.run_id === null) this.#failures = 0;
    if (isReply) return this.#onReply(frame);
    const run = this.#runs.get(frame.run_id);
    if (run === undefined) return;
    const isAsked = [...this.#asked.values()].includes(run.id);
    if (!run._take(frame) && !isAsked) this.#ask(run);
    if (run.isOver) this.#runs.delete(run.id);
  }

  /** @param {any} frame */
  #onReply(frame) {
    const refused = frame.type === "rejected" ? new RejectedError(frame.code, frame.error) : null;
    const run = this.#runs.get(this.#asked.get(frame.ref) ?? "");
    this.#asked.delete(frame.ref);
    // Of no command: the server lost our place in a run. Come back, tell it, and hear the reason.
    if (refused && frame.ref === null) return this.#socket?.close();
    if (run !== undefined && (refused || frame.is_over)) {
      run._end(refused);
      this.#runs.delete(run.id);
    }
    const control = this.#controls.get(frame.ref);
    this.#controls.delete(frame.ref);
    if (refused) control?.reject(refused);
    else control?.resolve();
  }

  // Server-Sent Events

  /** Read a run to its end, however often that has to be begun anew. @param {Run} run */
  async #read(run) {
    if (this.#reading.has(run)) return;
    this.#reading.set(run, undefined);
    await this.#readOn(run);
    this.#reading.delete(run);
    if (run.isOver && this.#runs.get(run.id) === run) this.#runs.delete(run.id);
  }

  /** @param {Run} run */
  async #readOn(run) {
    for (let attempt = 0; !run.isOver && this.#transport === "sse"; attempt += 1) {
      if (attempt > 0) await this.#pause(attempt - 1);
      if (run.isOver) break;
      let asked;
      try {
        const [response, request] = await this.#request(run);
        asked = request;
        if (run.isOver) break;
        this.#reading.set(run, request);
        const heard = () => this.#requests.get(request)?.heard();
        if (response.status === 401) {
          this.#refusal = (await refusal(response)).message;
          return this.#setState("unauthorized");
        }
        // Whoever starts something is told that it is too much; what goes on is come back to.
        const isTooMuch = response.status === 429 && startOf(run).type === "message";
        if (isForNow(response.status) && !isTooMuch) throw new Error(`status ${response.status}`);
        this.#setState("open");
        if (response.status === 204) run._end();
        else if (!response.ok) run._end(await refusal(response));
        else if (response.body) {
          for await (const data of readServerSentEvents(response.body, heard)) {
            const frame = JSON.parse(data);
            // The log cannot be read on from there: come back, and hear the reason.
            if (frame.type === "rejected") break;
            attempt = 0;
            if (!run._take(frame) || run.isOver) break;
          }
        }
      } catch {
        // The connection was lost; what was not read is asked for below.
      } finally {
        this.#end(asked);
      }
      if (!run.isOver) this.#setState("waiting");
    }
  }

  /** @param {Run} run */
  #request(run) {
    const start = startOf(run);
    if (start.type === "resume") {
      const headers = new Headers();
      if (run.lastSeq >= 0) headers.set("Last-Event-ID", `${run.id}:${run.lastSeq}`);
      const snapshot = start.snapshot ? `&snapshot=${start.snapshot === "log" ? "log" : 1}` : "";
      return this.#fetch(`runs/${run.id}/events?mode=${run.mode}&${LINKED}${snapshot}${this.#whose}`, { headers });
    }
    const { type, ...said } = start;
    const body = JSON.stringify({ ...said, run_id: run.id, mode: run.mode });
    return this.#fetch(`chat/stream?${LINKED}`, { method: "POST", headers: JSON_TYPE, body });
  }

  /**
   * @param {Run} run
   * @param {{type: string, [key: string]: unknown}} command
   */
  async #post(run, { type, ...keys }) {
    const body = JSON.stringify(keys);
    for (let attempt = 0; ; attempt += 1) {
      let response;
      let request;
      try {
        [response, request] = await this.#fetch(`runs/${run.id}/${type}${this.#whose.replace("&", "?")}`, { method: "POST", headers: JSON_TYPE, body });
      } catch (error) {
        if (this.#state === "closed" || run.isOver) throw error;
        await this.#pause(attempt);
        continue;
      }
      try {
        if (!response.ok) throw await refusal(response);
        return;
      } finally {
        this.#end(request);
      }
    }
  }

  /** Tell whether the server is there and lets us in, where nothing else is read. */
  async #check() {
    const status = await this.#probe();
    if (status === 401) this.#setState("unauthorized");
    else if (status > 0 && !isForNow(status)) this.#setState("open");
    else if (this.#runs.size === 0 && this.#state !== "closed") {
      this.#setState("waiting");
      await this.#pause(this.#attempts++);
      this.#check();
    }
  }

  /**
   * Make a request, which is given up where it falls silent; it has to be ended.
   *
   * @param {string} path
   * @param {RequestInit} [options]
   * @returns {Promise<[Response, AbortController]>}
   */
  async #fetch(path, options = {}) {
    const headers = new Headers(options.headers);
    if (this.#token !== null) headers.set("Authorization", `Bearer ${this.#token}`);
    const request = new AbortController();
    const watch = new Watch(() => request.abort());
    this.#requests.set(request, watch);
    // What is sent takes its time as well, be it over a slow network.
    const sending = typeof options.body === "string" ? options.body.length / SLOWEST : 0;
    const head = setTimeout(() => request.abort(), ANSWER + sending);
    try {
      const where = new URL(path, this.#base);
      const response = await fetch(where, { ...options, headers, cache: "no-store", signal: request.signal });
      watch.heard();
      return [response, request];
    } catch (error) {
      this.#end(request);
      throw error;
    } finally {
      clearTimeout(head);
    }
  }

  /** @param {AbortController | undefined} request */
  #end(request) {
    if (request === undefined) return;
    request.abort();
    this.#requests.get(request)?.end();
    this.#requests.delete(request);
  }
}

/** Whether a status is the server's for now, and for whatever is asked. @param {number} status */
const isForNow = (status) => status >= 500 || status === 429;

/** The command that brings a run's events from where we are. @param {Run} run */
function startOf(run) {
  if (run.message === null || run.hasBegun) {
    const after = run.lastSeq;
    return after < 0 && run.snapshot ? { type: "resume", after, snapshot: run.snapshot } : { type: "resume", after };
  }
  const parts = run.parts.length > 0 ? { parts: run.parts } : {};
  return { type: "message", message: run.message, session_id: run.sessionId, ...parts };
}

/** What the server says in an answer that is not a good one. @param {Response} response */
async function refusal(response) {
  const said = await response.json().catch(() => ({}));
  const error = said.error ?? said.detail ?? `the server answered ${response.status}`;
  return new RejectedError(said.code ?? `http_${response.status}`, String(error));
}

/**
 * The data of each event, by the HTML standard, section 9.2.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @param {() => void} [heard] Called for whatever comes, comments too.
 * @returns {AsyncGenerator<string, void, void>}
 */
export async function* readServerSentEvents(body, heard = () => {}) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  /** @type {string[]} */
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      // A CR at the end may be half of a CRLF: it waits for what follows.
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop() ?? "";
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "") continue;
        if (data.length > 0) yield data.join("\n");
        data = [];
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
