/**
 * The studio: the runs of all tenants, what they wait for, and one of them from near. For operators.
 *
 * The address says what is looked at, so that it can be handed on: `#/runs?status=error`, `#/inbox`,
 * `#/run/tenant/id?at=seq`.
 */

import { byId } from "./dom.js";
import { Client } from "./flowtrio.js";
import { Inbox } from "./inbox.js";
import { Looked, readLog } from "./looked.js";
import { Runs } from "./runs.js";
import { where, addressOf } from "./where.js";

const KEY = `flowtrio studio ${location.pathname}`;
/** Milliseconds between two looks at what there is. */
const OFTEN = 3000;

const page = {
  connection: byId("connection", HTMLElement),
  waiting: byId("waiting", HTMLElement),
  notice: byId("notice", HTMLElement),
  dialog: byId("ask-token", HTMLDialogElement),
  token: byId("token", HTMLInputElement),
  tokenWrong: byId("token-wrong", HTMLElement),
  enterToken: byId("enter-token", HTMLButtonElement),
  file: byId("file", HTMLInputElement),
};

/** The operator's token, for as long as the tab is open. */
const kept = {
  get() {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return null;
    }
  },
  /** @param {string} token */
  set(token) {
    try {
      sessionStorage.setItem(KEY, token);
    } catch {
      // Then a reload asks again.
    }
  },
};

const client = new Client({ token: kept.get(), transport: "sse" });

/** Ask the server for something in JSON. @param {string} path @param {{method?: string, body?: unknown}} [options] */
async function load(path, options) {
  return JSON.parse(await (await client.load(path, options)).text());
}

const tools = { load, notify, announce, look, open: (/** @type {string} */ tenant) => new Client({ token: client.token, tenant }) };
const runs = new Runs(tools);
const inbox = new Inbox(tools);
const looked = new Looked(tools);

// Looking again

let isIn = false;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let next;

/** Look at what there is, and again after a while. */
async function look() {
  clearTimeout(next);
  if (document.hidden || page.dialog.open) return;
  try {
    const asked = await load("operator/inbox?limit=200");
    isIn = true;
    tellConnection("open", "Connected");
    inbox.show(asked.items);
    const { total } = asked;
    page.waiting.hidden = total === 0;
    page.waiting.textContent = ` ${total}`;
    document.title = total === 0 ? "flowtrio studio" : `(${total}) flowtrio studio`;
    if (where().view !== "inbox") await runs.refresh();
  } catch (error) {
    onRefused(/** @type {Error & {code?: string}} */ (error));
  }
  next = setTimeout(look, OFTEN);
}

/** What it means that nobody is let in. @param {Error & {code?: string}} error */
function wrong({ code, message }) {
  if (code === "not_operator") return "The server knows you, but not as an operator.";
  return code === "http_401" ? `The server does not take this token: ${message}.` : undefined;
}

/** @param {Error & {code?: string}} error */
function onRefused(error) {
  const said = wrong(error);
  if (said === undefined) {
    tellConnection("waiting", error.code === undefined ? "Reconnecting" : "The server refuses");
    if (error.code !== undefined) notify(error);
    return;
  }
  isIn = false;
  tellConnection("unauthorized", "Not signed in");
  page.tokenWrong.textContent = said;
  page.tokenWrong.hidden = client.token === null;
  if (!page.dialog.open) page.dialog.showModal();
}

/** @param {string} state @param {string} text */
function tellConnection(state, text) {
  page.connection.dataset.state = state;
  page.connection.textContent = text;
  page.enterToken.hidden = state !== "unauthorized";
}

/** @type {ReturnType<typeof setTimeout>} */
let telling;

/** Tell what went wrong. @param {Error} error */
function notify(error) {
  page.notice.textContent = error.message;
  page.notice.hidden = false;
  clearTimeout(telling);
  telling = setTimeout(() => (page.notice.hidden = true), 6000);
}

/** @param {string} text */
function announce(text) {
  byId("announcer", HTMLElement).textContent = text;
}

// What is looked at

function go() {
  const { view, tenant, run, at } = where();
  // A file is here only for as long as it is looked at.
  if (view === "file" && location.hash !== looked.id) return location.replace("#/runs");
  document.body.dataset.place = view;
  const isInbox = view === "inbox";
  if (view !== "run") {
    byId("inbox", HTMLElement).hidden = !isInbox;
    byId("runs", HTMLElement).hidden = isInbox;
    for (const [id, isThere] of /** @type {[string, boolean][]} */ ([["to-inbox", isInbox], ["to-runs", !isInbox]])) {
      byId(id, HTMLElement).toggleAttribute("aria-current", isThere);
    }
    byId("back", HTMLAnchorElement).href = location.hash || "#/runs";
  }
  if (view === "run") looked.show(tenant, run, at);
  if (view === "runs") runs.restore(where().query);
  runs.mark(looked.id);
  if (isIn) look();
}

byId("open-log", HTMLButtonElement).addEventListener("click", () => page.file.click());
page.file.addEventListener("change", async () => {
  const [file] = page.file.files ?? [];
  page.file.value = "";
  if (file === undefined) return;
  try {
    const events = readLog(await file.text());
    history.pushState(null, "", addressOf("file", file.name));
    document.body.dataset.place = "run";
    looked.showLog(file.name, events);
    runs.mark(looked.id);
  } catch (error) {
    notify(/** @type {Error} */ (error));
  }
});

byId("token-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  client.token = page.token.value.trim();
  kept.set(page.token.value.trim());
  page.token.value = "";
  page.dialog.close();
  looked.forget();
  go();
  look();
});
page.dialog.addEventListener("cancel", () => tellConnection("unauthorized", "Not signed in"));
page.enterToken.addEventListener("click", () => page.dialog.showModal());
addEventListener("hashchange", go);
addEventListener("popstate", go);
document.addEventListener("visibilitychange", () => isIn && look());
go();
look();
