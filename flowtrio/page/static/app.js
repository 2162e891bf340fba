/**
 * The page: a conversation with the agent, and the run behind each answer.
 *
 * What is kept is little: the conversation's id and its runs' ids, for as long as the tab is open.
 * After a reload each run is replayed from its first event, and one that still runs goes on.
 */

import { Attachments } from "./attachments.js";
import { Turn } from "./conversation.js";
import { byId, el } from "./dom.js";
import { Client, newId } from "./flowtrio.js";
import { Lanes } from "./lanes.js";
import { Log } from "./log.js";
import { Scroller } from "./scroller.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./flowtrio.js").Run} Run */
/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */
/** @typedef {import("./attachments.js").Attachment} Attachment */

/**
 * What is remembered of a run.
 *
 * @typedef {object} Remembered
 * @property {string} id
 * @property {string} message
 * @property {boolean} isStarted Whether the server is known to have it.
 */

const KEY = `flowtrio ${location.pathname}`;
/** Runs of a conversation that are remembered. */
const MOST_RUNS = 30;

const CONNECTIONS = {
  idle: "Not connected",
  connecting: "Connecting",
  open: "Connected",
  waiting: "Reconnecting",
  unauthorized: "Token needed",
  closed: "Closed",
};

/** The tab's memory; where a browser allows none, it lasts as long as the page. */
const memory = {
  /** @type {{sessionId: string, token: string | null, runs: Remembered[], forgotten: number}} */
  value: { sessionId: newId(), token: null, runs: [], forgotten: 0 },
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
};

memory.load();
const client = new Client({ token: memory.value.token });

const page = {
  turns: byId("turns", HTMLElement),
  welcome: byId("welcome", HTMLElement),
  composer: byId("composer", HTMLFormElement),
  message: byId("message", HTMLTextAreaElement),
  send: byId("send", HTMLButtonElement),
  attach: byId("attach", HTMLButtonElement),
  files: byId("files", HTMLInputElement),
  stop: byId("stop", HTMLButtonElement),
  connection: byId("connection", HTMLElement),
  notice: byId("notice", HTMLElement),
  announcer: byId("announcer", HTMLElement),
  dialog: byId("ask-token", HTMLDialogElement),
  token: byId("token", HTMLInputElement),
  tokenWrong: byId("token-wrong", HTMLElement),
  enterToken: byId("enter-token", HTMLButtonElement),
};

const attachments = new Attachments(byId("attachments", HTMLElement), tell);
const scroller = new Scroller(page.turns, byId("jump", HTMLButtonElement));

// The run that is looked at

/** One run on this page. */
class Shown {
  /** @type {AgentEvent[]} */ events = [];
  lanes = new Lanes();

  /** @param {Remembered} remembered @param {Attachment[]} [sent] */
  constructor(remembered, sent = []) {
    this.remembered = remembered;
    this.parts = sent.map(({ part }) => part);
    /** @type {Run | null} */
    this.run = null;
    const control = (/** @type {(run: Run) => Promise<void>} */ act) => {
      if (this.run === null || !isLetIn()) return Promise.resolve(false);
      return act(this.run).then(() => true, notify);
    };
    this.turn = new Turn(remembered.message, {
      approve: (callId, args) => control((run) => run.approve(callId, args)),
      deny: (callId, reason) => control((run) => run.deny(callId, reason)),
      cancelTool: (callId) => control((run) => run.cancelTool(callId)),
      answer: (requestId, value) => control((run) => run.answer(requestId, value)),
      dismiss: (requestId) => control((run) => run.dismiss(requestId)),
      inspect: () => inspect(this, true),
      announce,
      settled: () => scheduleFlush(this),
    }, sent);
  }

  /** @param {AgentEvent} event */
  add(event) {
    this.events.push(event);
    this.lanes.add(event);
    this.turn.add(event);
    if (this === inspected) {
      timeline.changed();
      log.changed();
    }
    scheduleFlush(this);
  }
}

/** @type {Shown[]} */
const shown = [];
/** @type {Shown | null} */
let inspected = null;

const log = new Log(byId("events", HTMLElement));
const timeline = new Timeline(byId("timeline", HTMLElement), (seq) => {
  selectTab("events");
  log.reveal(seq);
});

/** @param {Shown | null} one @param {boolean} [isAsked] Whether by a person. */
function inspect(one, isAsked = false) {
  if (one !== inspected) {
    inspected?.turn.element.classList.remove("inspected");
    one?.turn.element.classList.add("inspected");
    inspected = one;
    timeline.show(one?.lanes ?? null);
    log.show(one?.events ?? []);
  }
  if (isAsked && document.body.dataset.tab === "chat") selectTab("timeline");
}

// Runs

/** The run that goes on, if one does. */
function current() {
  const last = shown.at(-1);
  return last !== undefined && !last.turn.isOver ? last : null;
}

/** @param {Remembered} remembered @param {Attachment[]} [sent] */
function show(remembered, sent) {
  const one = new Shown(remembered, sent);
  shown.push(one);
  page.welcome.hidden = true;
  page.turns.append(one.turn.element);
  inspect(one);
  return one;
}

/** Follow a run to its end. @param {Shown} one */
async function follow(one) {
  const { remembered, turn } = one;
  const { id, message } = remembered;
  // One that the server may not have is started, which attaches where it has; any other is only
  // followed, so that a server which forgot it does not run it again.
  one.run = remembered.isStarted
    ? client.resume(id)
    : client.send(message, { runId: id, sessionId: memory.value.sessionId, parts: one.parts });
  update();
  try {
    for await (const event of one.run) {
      if (!remembered.isStarted) {
        remembered.isStarted = true;
        memory.save();
      }
      one.add(event);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "failed";
    one.lanes.isOver = true;
    turn.fail(code.replaceAll("_", " "), LOST[code] ?? (error instanceof Error ? error.message : ""));
  }
  scheduleFlush(one);
}

/** @type {Record<string, string>} What it means that a run cannot be followed. */
const LOST = {
  unknown_run: "The server does not keep this run any more.",
  not_resumable: "The connection was lost, and this server does not keep the logs of its runs.",
  replay_gap: "The server does not keep the beginning of this run any more.",
};

function submit() {
  const message = page.message.value.trim();
  if ((message === "" && attachments.isEmpty) || !isLetIn()) return;
  const running = current();
  if (running !== null) return post(running, message);
  page.message.value = "";
  fitMessage();
  const remembered = { id: newId(), message, isStarted: false };
  const runs = [...memory.value.runs, remembered];
  memory.value.forgotten += Math.max(0, runs.length - MOST_RUNS);
  memory.value.runs = runs.slice(-MOST_RUNS);
  memory.save();
  const one = show(remembered, attachments.take());
  scroller.follow();
  follow(one);
}

/** Say it to the run that goes on. @param {Shown} one @param {string} message */
async function post(one, message) {
  if (one.run === null) return;
  page.message.value = "";
  fitMessage();
  const sent = attachments.take();
  try {
    await one.run.post(message, { parts: sent.map(({ part }) => part) });
  } catch (error) {
    // It is still theirs to send, once the answer is there.
    if (page.message.value === "") page.message.value = message;
    fitMessage();
    attachments.put(sent);
    notify(/** @type {Error} */ (error));
  }
}

function stop() {
  const one = current();
  if (one === null || !isLetIn()) return;
  // Not disabled, which would take the keyboard's place away.
  page.stop.textContent = "Stopping";
  one.run?.cancel("stopped on the page").catch(notify);
}

function startAnew() {
  current()?.run?.cancel("a new conversation was begun").catch(() => {});
  attachments.take();
  memory.value = { ...memory.value, sessionId: newId(), runs: [], forgotten: 0 };
  memory.save();
  page.turns.querySelector(".earlier")?.remove();
  for (const one of shown.splice(0)) one.turn.element.remove();
  inspect(null);
  page.welcome.hidden = false;
  update();
  page.message.focus();
}

async function restore() {
  const { forgotten } = memory.value;
  if (forgotten > 0) {
    const said = `${forgotten} earlier ${forgotten === 1 ? "turn is" : "turns are"} not shown any more; the agent still knows them.`;
    page.turns.append(el("p", "earlier", said));
  }
  const all = memory.value.runs.map((remembered) => show(remembered));
  scroller.follow();
  // One after another: the server bounds how many a connection follows at once.
  for (const one of all) await follow(one);
  // What was sent is in the conversation, once its run has ended.
  if (all.some((one) => one.turn.lacksPictures)) await showPictures(all).catch(() => {});
}

/** Show what was sent with the messages, as the server keeps it. @param {Shown[]} all */
async function showPictures(all) {
  const place = `sessions/${encodeURIComponent(memory.value.sessionId)}`;
  const { messages } = JSON.parse(await (await client.load(place)).text());
  const said = messages.filter((/** @type {any} */ message) => message.role === "user");
  // The newest first: the oldest may be forgotten on either side.
  for (const one of all.toReversed()) {
    if (one.turn.parts.length === 0) continue;
    const wanted = JSON.stringify(one.turn.parts.map(key));
    const at = said.findLastIndex((/** @type {any} */ { content }) => JSON.stringify(media(content).map(key)) === wanted);
    if (at < 0) continue;
    const [message] = said.splice(at);
    for (const [number, { part }] of media(message.content).entries()) {
      if (part === undefined) continue;
      one.turn.showPicture(number, URL.createObjectURL(await client.load(`${place}/parts/${part}`)));
    }
  }
}

/** The images and files of a message's content. @param {any} content @returns {any[]} */
const media = (content) => (Array.isArray(content) ? content.filter(({ type }) => type === "image" || type === "file") : []);

/** What tells one from another. @param {any} told */
const key = ({ media_type, bytes, name }) => [media_type, bytes, name];

// What is seen of it

/** @type {Set<Shown>} */
const unflushed = new Set();

/** @param {Shown} one */
function scheduleFlush(one) {
  // A page that is not seen has no frames, but it has a title.
  if (unflushed.size === 0) document.hidden ? setTimeout(flush) : requestAnimationFrame(flush);
  unflushed.add(one);
}

document.addEventListener("visibilitychange", flush);

function flush() {
  for (const one of unflushed) one.turn.flush();
  unflushed.clear();
  update();
}

function update() {
  const one = current();
  const hadFocus = document.activeElement === page.stop;
  page.stop.hidden = one === null;
  page.message.placeholder = one === null ? "Message" : "Say something meanwhile";
  if (one === null) page.stop.textContent = "Stop";
  if (hadFocus && one === null) page.message.focus();
  ask(one?.turn.asking() ?? null);
  scroller.target = asked?.element ?? (one ?? shown.at(-1))?.turn.failure ?? null;
  scroller.keep();
  const said = asked?.title ?? (one === null ? "" : "●");
  document.title = `${said} flowtrio`.trim();
}

/** @type {import("./conversation.js").Asking | null} What a person is asked now. */
let asked = null;

/** Put a question where it is seen, and the keyboard with it. @param {typeof asked} next */
function ask(next) {
  if (next?.element === asked?.element) return;
  asked = next;
  const had = document.activeElement ?? document.body;
  const isLost = had === document.body || had.matches(":disabled");
  if (next === null) {
    // What was answered would leave the keyboard at the top of the page.
    if (isLost && !isTouched.matches) page.message.focus();
    return;
  }
  if (!isWide.matches) selectTab("chat");
  // Not from under the hands of somebody who writes, or who is elsewhere on the page.
  const isIdle = had === page.stop || had === page.turns || (had === page.message && page.message.value === "");
  if (isLost || isIdle) next.field.focus({ preventScroll: true });
}

function updateConnection() {
  const { state, transport } = client;
  page.connection.dataset.state = state;
  page.connection.textContent = CONNECTIONS[state] + (state === "open" && transport === "sse" ? " · SSE" : "");
  page.enterToken.hidden = state !== "unauthorized";
  isLetIn();
}

/**
 * Whether the server may be asked for something. Where it wants a token first, that is asked for:
 * whoever closed the dialog meets it again with whatever they do next.
 */
function isLetIn() {
  if (client.state !== "unauthorized") return true;
  page.tokenWrong.hidden = client.token === null;
  if (!page.dialog.open) page.dialog.showModal();
  return false;
}

/** @param {string} text */
function announce(text) {
  page.announcer.textContent = text;
}

/** Tell what went wrong with a command. @param {Error} error */
function notify(error) {
  tell(error.message);
  return false;
}

/** @type {ReturnType<typeof setTimeout>} */
let telling;

/** @param {string} text */
function tell(text) {
  page.notice.textContent = text;
  page.notice.hidden = false;
  clearTimeout(telling);
  telling = setTimeout(() => (page.notice.hidden = true), 6000);
}

function fitMessage() {
  page.message.style.height = "auto";
  page.message.style.height = `${page.message.scrollHeight + 2}px`;
}

// Tabs

const TABS = ["chat", "timeline", "events"];
const isWide = matchMedia("(min-width: 60rem)");
/** Where the keyboard is on the screen, and comes up with a field. */
const isTouched = matchMedia("(pointer: coarse)");

/** @param {string} name */
function selectTab(name) {
  // Beside a wide conversation there is always one of the others.
  const chosen = isWide.matches && name === "chat" ? "timeline" : name;
  document.body.dataset.tab = chosen;
  for (const tab of TABS) {
    const node = byId(`tab-${tab}`, HTMLElement);
    node.setAttribute("aria-selected", String(tab === chosen));
    node.tabIndex = tab === chosen ? 0 : -1;
  }
  timeline.draw();
  scroller.keep();
}

for (const name of TABS) {
  const tab = byId(`tab-${name}`, HTMLElement);
  tab.addEventListener("click", () => selectTab(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    const those = isWide.matches ? TABS.slice(1) : TABS;
    const next = those[(those.indexOf(name) + step + those.length) % those.length];
    selectTab(next);
    byId(`tab-${next}`, HTMLElement).focus();
  });
}
isWide.addEventListener("change", () => selectTab("chat"));

// What a person does

page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
page.message.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
page.message.addEventListener("input", fitMessage);
page.attach.addEventListener("click", () => page.files.click());
page.files.addEventListener("change", async () => {
  await attachments.add([...(page.files.files ?? [])]);
  // The same file may be chosen again.
  page.files.value = "";
  page.message.focus();
});
page.message.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length === 0) return;
  event.preventDefault();
  attachments.add(files);
});
page.turns.addEventListener("dragover", (event) => event.preventDefault());
page.turns.addEventListener("drop", (event) => {
  event.preventDefault();
  attachments.add([...(event.dataTransfer?.files ?? [])]);
});
page.stop.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented && !page.dialog.open) stop();
});
byId("new", HTMLButtonElement).addEventListener("click", startAnew);
byId("token-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  memory.value.token = page.token.value.trim();
  memory.save();
  page.dialog.close();
  client.token = memory.value.token;
});
page.enterToken.addEventListener("click", isLetIn);
client.addEventListener("state", updateConnection);

selectTab("chat");
client.connect();
updateConnection();
restore();
