/**
 * The page: a conversation with the agent, and the run behind each answer.
 *
 * What is kept is little: the conversation's id and its runs' ids, for as long as the tab is open.
 * After a reload each run is told in as few events as show all of it, and one that still runs goes
 * on. The whole log is read where somebody looks at it.
 */

import { Composer } from "./composer.js";
import { Turn } from "./conversation.js";
import { Conversations } from "./conversations.js";
import { byId, el } from "./dom.js";
import { Events } from "./events.js";
import { Client, newId, RejectedError } from "./flowtrio.js";
import { Lanes } from "./lanes.js";
import { Log } from "./log.js";
import { memory } from "./memory.js";
import { Scroller } from "./scroller.js";
import { totalOf } from "./spent.js";
import { Timeline } from "./timeline.js";

/** @typedef {import("./flowtrio.js").Run} Run */
/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */
/** @typedef {import("./attachments.js").Attachment} Attachment */
/** @typedef {import("./memory.js").Remembered} Remembered */

const CONNECTIONS = {
  idle: "Not connected",
  connecting: "Connecting",
  open: "Connected",
  waiting: "Reconnecting",
  unauthorized: "Token needed",
  closed: "Closed",
};

memory.load();
const client = new Client({ token: memory.value.token });

const page = {
  turns: byId("turns", HTMLElement),
  welcome: byId("welcome", HTMLElement),
  total: byId("total", HTMLElement),
  editing: byId("editing", HTMLElement),
  stop: byId("stop", HTMLButtonElement),
  connection: byId("connection", HTMLElement),
  notice: byId("notice", HTMLElement),
  announcer: byId("announcer", HTMLElement),
  dialog: byId("ask-token", HTMLDialogElement),
  token: byId("token", HTMLInputElement),
  tokenWrong: byId("token-wrong", HTMLElement),
  enterToken: byId("enter-token", HTMLButtonElement),
};

const composer = new Composer({
  send: submit,
  tell,
  place: page.turns,
  draft: (text) => {
    memory.value.draft = text;
    memory.save();
  },
});
const scroller = new Scroller(page.turns, byId("jump", HTMLButtonElement));

// The run that is looked at

/** One run on this page. */
class Shown {
  lanes = new Lanes();
  /** @type {() => void} */ tell = () => {};
  /** When it is known how it stands. @type {Promise<void>} */
  known = new Promise((resolve) => (this.tell = resolve));

  /** @param {Remembered} remembered @param {Attachment[]} [sent] */
  constructor(remembered, sent = []) {
    this.remembered = remembered;
    this.sent = sent;
    this.events = new Events(remembered.id, () => new Client({ token: client.token, transport: "sse" }));
    /** @type {Run | null} */
    this.run = null;
    const control = (/** @type {(run: Run) => Promise<void>} */ act) => {
      if (this.run === null || !isLetIn()) return Promise.resolve("");
      return act(this.run).then(() => null, (error) => /** @type {string} */ (error.message));
    };
    this.turn = new Turn(remembered.message, {
      approve: (callId, args) => control((run) => run.approve(callId, args)),
      deny: (callId, reason) => control((run) => run.deny(callId, reason)),
      cancelTool: (callId) => control((run) => run.cancelTool(callId).catch(notify)),
      answer: (requestId, value) => control((run) => run.answer(requestId, value)),
      dismiss: (requestId) => control((run) => run.dismiss(requestId)),
      inspect: () => inspect(this, true),
      retry: () => again(this),
      edit: () => edit(this),
      announce,
      settled: () => scheduleFlush(this),
    }, sent);
  }

  /** @param {AgentEvent} event */
  add(event) {
    // Behind what came with it.
    if (this.events.all.length === 0) setTimeout(this.tell);
    this.events.add(event);
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

const log = new Log(byId("events", HTMLElement), notify);
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
    log.show(one?.events ?? new Events());
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

/**
 * Follow a run to its end.
 *
 * @param {Shown} one
 * @returns {Promise<boolean>} False where the server lets this page follow no more at once.
 */
async function follow(one) {
  const { remembered, turn } = one;
  const { id, message, refused } = remembered;
  // One that the server may not have is started, which attaches where it has; any other is only
  // followed, so that a server which forgot it does not run it again.
  const parts = one.sent.map(({ part }) => part);
  try {
    // To look again is no wish to try again.
    if (refused !== undefined) throw new RejectedError(...refused);
    one.run = remembered.isStarted
      ? client.resume(id, { snapshot: "log" })
      : client.send(message, { runId: id, sessionId: memory.value.sessionId, parts });
    update();
    for await (const event of one.run) {
      if (!remembered.isStarted) {
        remembered.isStarted = true;
        memory.save();
      }
      one.add(event);
    }
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "failed";
    one.tell();
    if (code === "too_many_runs" && remembered.isStarted) return false;
    if (error instanceof RejectedError && !remembered.isStarted) {
      remembered.refused = [code, error.message];
      memory.save();
    }
    one.lanes.isOver = true;
    turn.fail(code.replaceAll("_", " "), LOST[code] ?? (error instanceof Error ? error.message : ""));
  }
  one.tell();
  scheduleFlush(one);
  return true;
}

/** @type {Record<string, string>} What it means that a run cannot be followed. */
const LOST = {
  unknown_run: "The server does not keep this run any more.",
  not_resumable: "The connection was lost, and this server does not keep the logs of its runs.",
  replay_gap: "The server does not keep the beginning of this run any more.",
};

/** @param {boolean} isNow Whether the reply that is being written is cut for it. */
function submit(isNow) {
  if (composer.isEmpty || !isLetIn()) return;
  // It goes behind what was said before, which has to be here.
  if (recalling !== null) return void recalling.then(() => submit(isNow));
  const running = current();
  const message = composer.take();
  const left = edited;
  dropEdit();
  if (running !== null) post(running, message, isNow);
  else if (left !== null) branch(left, message);
  else start(message);
}

/** @param {import("./composer.js").Message} message */
function start({ text, sent }) {
  opened += 1;
  const remembered = { id: newId(), message: text, isStarted: false, files: sent.length };
  memory.add(remembered);
  name(memory.value.sessionId);
  const one = show(remembered, sent);
  scroller.follow();
  follow(one);
}

/**
 * Say it to the run that goes on.
 *
 * @param {Shown} one
 * @param {import("./composer.js").Message} message
 * @param {boolean} interrupt
 */
async function post(one, message, interrupt) {
  if (one.run === null) return composer.put(message);
  const said = one.turn.waiting.add(message.text, message.sent);
  scroller.follow();
  try {
    await one.run.post(message.text, { parts: message.sent.map(({ part }) => part), interrupt });
  } catch (error) {
    // It is still theirs to send, once the answer is there.
    one.turn.waiting.remove(said);
    composer.put(message);
    notify(/** @type {Error} */ (error));
  }
}

// Going back

/** @type {Shown | null} The turn whose message is written anew. */
let edited = null;

/** @type {import("./composer.js").Message} What was being written when that began. */
let drafted = { text: "", sent: [] };

/** Go on with what was being written before. */
function dropEdit() {
  if (edited === null) return;
  setEdited(null);
  composer.put(drafted);
}

/** @param {Shown | null} one */
function setEdited(one) {
  edited?.turn.element.classList.remove("edited-turn");
  edited = one;
  edited?.turn.element.classList.add("edited-turn");
  page.editing.hidden = one === null;
}

/** Ask the same again, instead of it. @param {Shown} one */
function again(one) {
  if (current() === null && hasAll(one)) branch(one, { text: one.turn.said.text, sent: one.turn.said.sent });
}

/** Let the message be written anew. @param {Shown} one */
function edit(one) {
  if (current() !== null || !hasAll(one)) return;
  const written = composer.take();
  if (edited === null) drafted = written;
  composer.put({ text: one.turn.said.text, sent: one.turn.said.sent });
  setEdited(one);
  composer.field.focus();
}

/** Whether all that was sent with a turn's message is still here. @param {Shown} one */
function hasAll({ turn, remembered }) {
  const { sent, parts } = turn.said;
  if (sent.length === Math.max(parts.length, remembered.files ?? 0)) return true;
  tell("The files of this message are not on this page any more: say it anew.");
  return false;
}

/** Go on from before a turn, with another message. @param {Shown} one @param {import("./composer.js").Message} message */
async function branch(one, message) {
  const place = shown.indexOf(one);
  const later = shown.slice(place).filter(({ turn }) => turn.hasBegun);
  const back = later.reduce((sum, { turn }) => sum + turn.saids.length, 0);
  const number = (opened += 1);
  let id = memory.value.sessionId;
  try {
    // What the server never took in is not to be gone back behind.
    if (back > 0) {
      const body = { back, message: later[0]?.turn.said.text };
      id = (await load(`sessions/${encodeURIComponent(id)}/branch`, { method: "POST", body })).session_id;
    }
  } catch (error) {
    composer.put(message);
    return notify(/** @type {Error} */ (error));
  }
  // Whoever did not want to wait for it asked again, said something else, or went elsewhere.
  if (number !== opened) return;
  memory.branch(id, shown.length - place);
  for (const { turn } of shown.splice(place)) turn.element.remove();
  start(message);
}

function stop() {
  const one = current();
  if (one === null || !isLetIn()) return;
  // Not disabled, which would take the keyboard's place away.
  page.stop.textContent = "Stopping";
  one.run?.cancel("stopped on the page").catch(notify);
}

function startAnew() {
  opened += 1;
  current()?.run?.cancel("a new conversation was begun").catch(() => {});
  memory.startAnew();
  clear();
  composer.take();
  name("");
  composer.field.focus();
}

/** Show no conversation. */
function clear() {
  if (edited !== null) composer.take();
  dropEdit();
  page.turns.querySelector(".earlier")?.remove();
  for (const one of shown.splice(0)) {
    one.turn.element.remove();
    one.run?.leave();
  }
  inspect(null);
  page.welcome.hidden = false;
  update();
}

// Finding conversations again

/** Ask the server for something in JSON. @param {string} path @param {{method?: string, body?: unknown}} [options] */
async function load(path, options) {
  const text = await (await client.load(path, options)).text();
  return text === "" ? null : JSON.parse(text);
}

const conversations = new Conversations({
  load,
  open,
  deleted: (id) => id === memory.value.sessionId && startAnew(),
  notify,
});

/** Have the address name a conversation. @param {string} id */
function name(id) {
  if (named() !== id) history.replaceState(null, "", id === "" ? location.pathname + location.search : `#${encodeURIComponent(id)}`);
}

/** The conversation that the address names. */
function named() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

/** How often it was decided what is looked at. */
let opened = 0;

/** Look at a conversation, as the server has it; what runs in the one before goes on. @param {string} id */
async function open(id) {
  const number = (opened += 1);
  if (id === memory.value.sessionId) return;
  let found;
  try {
    found = await load(`sessions/${encodeURIComponent(id)}`);
  } catch (error) {
    return notify(/** @type {Error} */ (error));
  }
  // Whoever did not want to wait for it looks at another one.
  if (number !== opened) return;
  const runs = runsOf(found);
  // A branch that nothing was said in has what was said before it, and no runs.
  const said = found.messages.filter((/** @type {any} */ { role }) => role === "user").length;
  memory.open(id, runs, runs.length === 0 ? said : 0);
  clear();
  name(id);
  await restore();
}

/** A conversation's runs, as they are remembered. @param {any} found @returns {Remembered[]} */
function runsOf({ runs }) {
  return runs.map((/** @type {any} */ { run_id, message }) => ({ id: run_id, message, isStarted: true }));
}

/** @type {Promise<void> | null} Until it is known what the tab's conversation is. */
let recalling = null;

/** Look at the tab's own conversation again, also at what was said in it elsewhere. */
async function recall() {
  const number = opened;
  if (memory.value.runs.length > 0) {
    const found = await load(`sessions/${encodeURIComponent(memory.value.sessionId)}`).catch(() => null);
    if (number !== opened) return;
    if (found !== null) memory.meet(runsOf(found));
  }
  restore();
  await shown.at(-1)?.known;
}

/** Runs that are read at once; a server lets a connection follow more, as a rule. */
const AT_ONCE = 3;

async function restore() {
  const { forgotten } = memory.value;
  if (forgotten > 0) {
    const said = `${forgotten} earlier ${forgotten === 1 ? "turn is" : "turns are"} not shown any more; the agent still knows them.`;
    page.turns.append(el("p", "earlier", said));
  }
  const all = memory.value.runs.map((remembered) => show(remembered));
  scroller.follow();
  // The newest first, which is what is seen, and some at once: far away each takes its time.
  const left = [...all];
  const readOn = async () => {
    for (let one = left.pop(); one !== undefined && shown.includes(one); one = left.pop()) {
      if (await follow(one)) continue;
      left.push(one);
      return;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, readOn));
  for (const one of left) {
    one.lanes.isOver = true;
    one.turn.fail("too many runs", "This page follows as many runs as the server lets it: reload it.");
  }
  if (!all.every((one) => shown.includes(one))) return;
  // What was sent is in the conversation, once its run has ended.
  if (all.some(({ turn }) => turn.saids.some(({ lacksPictures }) => lacksPictures))) await showPictures(all).catch(() => {});
}

/** Show what was sent with the messages, as the server keeps it. @param {Shown[]} all */
async function showPictures(all) {
  const place = `sessions/${encodeURIComponent(memory.value.sessionId)}`;
  const { messages } = await load(place);
  const said = messages.filter((/** @type {any} */ message) => message.role === "user");
  // The newest first: the oldest may be forgotten on either side.
  for (const told of all.flatMap(({ turn }) => turn.saids).reverse()) {
    if (told.parts.length === 0) continue;
    const wanted = JSON.stringify(told.parts.map(key));
    const at = said.findLastIndex((/** @type {any} */ { content }) => JSON.stringify(media(content).map(key)) === wanted);
    if (at < 0) continue;
    const [message] = said.splice(at);
    for (const [number, { part }] of media(message.content).entries()) {
      if (part === undefined) continue;
      told.showPicture(number, URL.createObjectURL(await client.load(`${place}/parts/${part}`)));
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

let flushedAt = 0;
/** Milliseconds after which what comes is the first word after a silence. */
const SILENCE = 100;

/** @param {Shown} one */
function scheduleFlush(one) {
  // A page that is not seen has no frames, but it has a title; and a first word waits for none.
  const isNow = document.hidden || performance.now() - flushedAt > SILENCE;
  if (unflushed.size === 0) isNow ? setTimeout(flush) : requestAnimationFrame(flush);
  unflushed.add(one);
}

document.addEventListener("visibilitychange", flush);

function flush() {
  flushedAt = performance.now();
  for (const one of unflushed) one.turn.flush();
  unflushed.clear();
  update();
}

function update() {
  const one = current();
  const hadFocus = document.activeElement === page.stop;
  page.stop.hidden = one === null;
  composer.isRunning = one !== null;
  page.total.textContent = totalOf(shown.map(({ turn }) => turn.usage));
  page.total.hidden = one !== null || page.total.textContent === "";
  if (one === null) page.stop.textContent = "Stop";
  if (hadFocus && one === null) composer.field.focus();
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
    if (isLost && !isTouched.matches) composer.field.focus();
    return;
  }
  if (!isWide.matches) selectTab("chat");
  // Not from under the hands of somebody who writes, or who is elsewhere on the page.
  const isIdle = had === page.stop || had === page.turns || (had === composer.field && composer.field.value === "");
  if (isLost || isIdle) next.field.focus({ preventScroll: true });
}

document.addEventListener("keydown", (event) => {
  if (event.target !== asked?.field || !(event.target instanceof HTMLButtonElement)) return;
  // Nobody approves by what they write on, nor by the key that is held since they sent something.
  if (event.repeat) event.preventDefault();
  else if (event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey) composer.field.focus();
});

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
  page.tokenWrong.textContent = `The server does not take this token: ${client.refusal}.`;
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
  log.look();
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

page.stop.addEventListener("click", stop);
byId("not-edit", HTMLButtonElement).addEventListener("click", () => {
  composer.take();
  dropEdit();
  composer.field.focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
  // What it closes is all that it means.
  if (document.querySelector("dialog[open]") === null) stop();
});
byId("new", HTMLButtonElement).addEventListener("click", startAnew);
byId("list", HTMLButtonElement).addEventListener("click", () => {
  if (isLetIn()) conversations.show(memory.value.sessionId);
});
addEventListener("hashchange", () => {
  if (named() !== "") open(named());
});
byId("token-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  memory.value.token = page.token.value.trim();
  memory.save();
  page.dialog.close();
  client.token = memory.value.token;
});
page.enterToken.addEventListener("click", isLetIn);
client.addEventListener("state", updateConnection);

composer.put({ text: memory.value.draft, sent: [] });
selectTab("chat");
client.connect();
updateConnection();
if (named() !== "" && named() !== memory.value.sessionId) open(named());
else recalling = recall().finally(() => (recalling = null));
