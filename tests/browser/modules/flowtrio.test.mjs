/** The client library against a server that the test plays. */

import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Client, newId, readServerSentEvents, RejectedError } from "../../../flowtrio/page/static/flowtrio.js";

const URL_BASE = "http://127.0.0.1:1/below/";

/** @type {FakeSocket[]} */
let sockets = [];

class FakeSocket {
  sent = [];
  isClosed = false;

  constructor(url, protocols) {
    this.url = String(url);
    this.protocols = protocols;
    sockets.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.drop();
  }

  // What the server and the network do

  open() {
    this.onopen();
  }

  give(...frames) {
    for (const frame of frames) this.onmessage({ data: JSON.stringify(frame) });
  }

  drop(code = 1006) {
    if (this.isClosed) return;
    this.isClosed = true;
    this.onclose({ code });
  }
}

beforeEach(() => {
  sockets = [];
  globalThis.WebSocket = FakeSocket;
  globalThis.fetch = async () => {
    throw new TypeError("no network");
  };
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_000_000 });
});
afterEach(() => mock.timers.reset());

const event = (runId, seq, type = "message_chunk", data = {}) => ({
  type, data, seq, run_id: runId, agent: "root", timestamp: 0,
});

/** Let everything happen that waits for nothing but its turn. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

/** Let time pass until the client has connected again. */
async function comeBack() {
  await settle();
  mock.timers.tick(20_000);
  await settle();
}

async function seqsOf(run) {
  const seqs = [];
  for await (const event of run) seqs.push(event.seq);
  return seqs;
}

test("a run is started under an id of our own, and read to its end", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello", { sessionId: "s" });
  const seqs = seqsOf(run);
  sockets[0].open();
  const [{ ref, ...start }] = sockets[0].sent;
  sockets[0].give({ type: "accepted", ref, run_id: run.id });
  sockets[0].give([event(run.id, 0), event(run.id, 1)], event(run.id, 2, "done"));

  assert.equal(sockets[0].url, "ws://127.0.0.1:1/below/chat?linked=1");
  assert.deepEqual(sockets[0].protocols, ["flowtrio.batch.v1", "flowtrio.v1"]);
  assert.deepEqual(start, { type: "message", message: "hello", session_id: "s", run_id: run.id, mode: "events" });
  assert.deepEqual(await seqs, [0, 1, 2]);
  client.close();
});

test("the token goes into a subprotocol", () => {
  const client = new Client({ url: URL_BASE, token: "abc" });
  client.connect();

  assert.equal(sockets[0].protocols[0], "flowtrio.token.abc");
  assert.ok(!sockets[0].url.includes("abc"));
  client.close();
});

test("a start that got no answer is sent again under the same id", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  sockets[0].open();
  sockets[0].drop();
  await comeBack();
  sockets[1].open();

  assert.equal(sockets[1].sent[0].type, "message");
  assert.equal(sockets[1].sent[0].run_id, run.id);
  client.close();
});

test("a start that is too big is given up; what runs beside it goes on", async () => {
  const client = new Client({ url: URL_BASE });
  const [small, big] = [client.send("hello"), client.send("x".repeat(1000))];
  const smalls = seqsOf(small);
  const bigs = seqsOf(big);
  sockets[0].open();
  sockets[0].give(event(small.id, 0));
  sockets[0].drop(1009);

  await assert.rejects(bigs, (error) => error instanceof RejectedError && error.code === "too_big");

  await comeBack();
  sockets[1].open();

  assert.deepEqual(sockets[1].sent.map(({ type, run_id }) => [type, run_id]), [["resume", small.id]]);

  sockets[1].give(event(small.id, 1, "done"));

  assert.deepEqual(await smalls, [0, 1]);
  client.close();
});

test("of all that was sent, what is too big is given up alone, be it posted to a run", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  sockets[0].open();
  const posted = run.post("look", { parts: [{ type: "image", data: "x".repeat(1000) }] });
  const stopped = run.cancel("enough");
  sockets[0].drop(1009);

  await assert.rejects(posted, (error) => error instanceof RejectedError && error.code === "too_big");

  await comeBack();
  sockets[1].open();
  const types = sockets[1].sent.map(({ type }) => type);
  sockets[1].give({ type: "accepted", ref: sockets[1].sent.at(-1).ref, run_id: run.id });
  await stopped;

  assert.deepEqual(types, ["message", "cancel"]);
  client.close();
});

test("a page that is left closes what it has open, and goes on when it is come back to", async () => {
  const page = new EventTarget();
  globalThis.addEventListener = page.addEventListener.bind(page);
  globalThis.removeEventListener = page.removeEventListener.bind(page);
  try {
    const client = new Client({ url: URL_BASE });
    const run = client.send("hello");
    page.dispatchEvent(new Event("pagehide"));

    assert.ok(sockets[0].isClosed, "one that was opening");

    await settle();
    page.dispatchEvent(new Event("pageshow"));
    await settle();
    sockets[1].open();
    sockets[1].give(event(run.id, 0));
    page.dispatchEvent(new Event("pagehide"));

    assert.ok(sockets[1].isClosed);

    await settle();
    page.dispatchEvent(new Event("pageshow"));
    await settle();
    sockets[2].open();

    assert.deepEqual(sockets[2].sent.map(({ type, after }) => [type, after]), [["resume", 0]]);

    client.close();
    page.dispatchEvent(new Event("pagehide"));
    page.dispatchEvent(new Event("pageshow"));
    await settle();

    assert.equal(sockets.length, 3);
  } finally {
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  }
});

test("a lost connection goes on behind the last event, and nothing comes twice", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  const seqs = seqsOf(run);
  sockets[0].open();
  sockets[0].give(event(run.id, 0), event(run.id, 1));
  sockets[0].drop();
  assert.equal(client.state, "waiting");
  await comeBack();
  sockets[1].open();
  const { ref, ...resume } = sockets[1].sent[0];
  sockets[1].give(event(run.id, 1), event(run.id, 2), event(run.id, 2), event(run.id, 3, "done"));

  assert.deepEqual(resume, { type: "resume", after: 1, run_id: run.id, mode: "events" });
  assert.deepEqual(await seqs, [0, 1, 2, 3]);
  client.close();
});

/** Let time pass in small steps, as it does. */
async function pass(seconds) {
  for (let at = 0; at < seconds; at += 1) {
    mock.timers.tick(1000);
    await settle();
  }
}

test("a WebSocket that falls silent is asked, and left where nobody answers", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  const seqs = seqsOf(run);
  sockets[0].open();
  sockets[0].give(event(run.id, 0));
  // As a browser does where the other side is gone: it waits for a minute.
  sockets[0].close = () => {};
  await pass(14);
  sockets[0].give(event(run.id, 1));
  await pass(14);

  assert.equal(sockets[0].sent.length, 1);

  await pass(1);
  const ping = sockets[0].sent[1];
  sockets[0].give({ type: "accepted", ref: ping.ref, run_id: null });
  await pass(24);

  assert.deepEqual({ ...ping, ref: 0 }, { type: "ping", ref: 0 });
  assert.equal(client.state, "open");

  await pass(2);

  assert.equal(sockets.length, 2);

  sockets[1].open();
  sockets[0].give(event(run.id, 2));
  sockets[1].give(event(run.id, 2, "done"));

  assert.deepEqual(sockets[1].sent.map(({ type, after }) => [type, after]), [["resume", 1]]);
  assert.deepEqual(await seqs, [0, 1, 2]);
  client.close();
});

test("a page that slept takes what came meanwhile before it takes its connection for dead", async () => {
  const client = new Client({ url: URL_BASE });
  client.connect();
  sockets[0].open();
  await pass(15);
  mock.timers.tick(3_600_000);
  await settle();

  assert.equal(client.state, "open");
  assert.equal(sockets[0].sent.length, 2);

  await pass(11);

  assert.equal(sockets.length, 2);
  client.close();
});

test("a handshake that is not answered is given up", async () => {
  const client = new Client({ url: URL_BASE });
  client.connect();
  sockets[0].close = () => {};
  await pass(12);

  assert.equal(sockets.length, 2);
  client.close();
});

test("a WebSocket that eats all that is said is replaced by SSE", async () => {
  globalThis.fetch = async () => new Response("{}", { status: 404 });
  const client = new Client({ url: URL_BASE });
  client.connect();
  for (let number = 0; number < 2; number += 1) {
    sockets[number].open();
    await pass(27);
  }

  assert.equal(client.transport, "sse");
  assert.equal(client.state, "open");
  client.close();
});

test("where messages are too large for the network, events are read as SSE", async () => {
  globalThis.fetch = async () => {
    const text = `data: ${JSON.stringify(event("r", 0, "done"))}\n\n`;
    return new Response(text, { headers: { "Content-Type": "text/event-stream" } });
  };
  const client = new Client({ url: URL_BASE });
  const seqs = seqsOf(client.resume("r"));
  for (let number = 0; number < 2; number += 1) {
    sockets[number].open();
    // The event behind this is on its way, and a browser does not tell.
    sockets[number].give({ type: "accepted", ref: sockets[number].sent[0].ref, run_id: "r" });
    await pass(27);
  }

  assert.equal(client.transport, "sse");
  assert.deepEqual(await seqs, [0]);
  client.close();
});

for (const what of ["an event", "a ping's answer"]) {
  test(`a WebSocket that falls silent after ${what} came is no reason for SSE`, async () => {
    const client = new Client({ url: URL_BASE });
    const run = client.resume("r");
    for (let number = 0; number < 3; number += 1) {
      const socket = sockets[number];
      socket.open();
      socket.give({ type: "accepted", ref: socket.sent[0].ref, run_id: "r" });
      await pass(16);
      const isEvent = what === "an event";
      socket.give(isEvent ? event("r", number) : { type: "accepted", ref: socket.sent[1].ref, run_id: null });
      await pass(27);
    }

    assert.equal(run.lastSeq, what === "an event" ? 2 : -1);
    assert.equal(client.transport, "websocket");
    assert.equal(sockets.length, 4);
    client.close();
  });
}

for (const what of ["visibilitychange", "pageshow"]) {
  test(`on ${what} the connection is looked at at once`, async () => {
    const page = new EventTarget();
    globalThis.addEventListener = page.addEventListener.bind(page);
    globalThis.removeEventListener = page.removeEventListener.bind(page);
    globalThis.document = page;
    page.baseURI = URL_BASE;
    try {
      const client = new Client();
      client.connect();
      sockets[0].open();
      page.visibilityState = "hidden";
      page.dispatchEvent(new Event(what));

      assert.equal(sockets[0].sent.length, 0);

      page.visibilityState = "visible";
      page.dispatchEvent(new Event(what));

      assert.deepEqual(sockets[0].sent.map(({ type }) => type), ["ping"]);

      await pass(11);

      assert.equal(sockets.length, 2);
      client.close();
      page.dispatchEvent(new Event(what));
      await pass(30);

      assert.equal(sockets.length, 2);
    } finally {
      delete globalThis.addEventListener;
      delete globalThis.removeEventListener;
      delete globalThis.document;
    }
  });
}

test("an answer in SSE that falls silent is read on from where it was", async () => {
  const asked = [];
  /** @type {ReadableStreamDefaultController[]} */
  const bodies = [];
  globalThis.fetch = async (url, { headers, signal }) => {
    asked.push([String(url).slice(URL_BASE.length), headers.get("Last-Event-ID")]);
    const body = new ReadableStream({ start: (controller) => void bodies.push(controller) });
    signal.addEventListener("abort", () => bodies.at(-1).error(signal.reason), { once: true });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  };
  const client = new Client({ url: URL_BASE, transport: "sse" });
  const run = client.send("hello");
  const seqs = seqsOf(run);
  await settle();
  const give = (number, text) => bodies[number].enqueue(new TextEncoder().encode(text));
  give(0, `data: ${JSON.stringify(event(run.id, 0))}\n\n`);
  for (let number = 0; number < 5; number += 1) {
    await pass(16);
    give(0, ": still here\n\n");
    await settle();
  }

  assert.equal(asked.length, 1);

  await pass(27);

  assert.deepEqual(asked.slice(1), [[`runs/${run.id}/events?mode=events&linked=1`, `${run.id}:0`]]);

  give(1, `data: ${JSON.stringify(event(run.id, 1, "done"))}\n\n`);

  assert.deepEqual(await seqs, [0, 1]);
  client.close();
});

test("a request that gets no answer is given up, and a command is sent again", async () => {
  let count = 0;
  globalThis.fetch = (url, { signal }) => new Promise((resolve, reject) => {
    if (!String(url).endsWith("approve")) return;
    count += 1;
    if (count > 1) return resolve(new Response("{}"));
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  const client = new Client({ url: URL_BASE, transport: "sse" });
  const approved = client.resume("r").approve("c1");
  await pass(12);
  await approved;

  assert.equal(count, 2);
  client.close();
});

test("a run whose end was seen before ends at once", async () => {
  const client = new Client({ url: URL_BASE });
  const seqs = seqsOf(client.resume("r", { after: 7 }));
  sockets[0].open();
  sockets[0].give({ type: "accepted", ref: sockets[0].sent[0].ref, run_id: "r", is_over: true });

  assert.deepEqual(await seqs, []);
  sockets[0].drop();
  await comeBack();
  sockets[1].open();
  assert.deepEqual(sockets[1].sent, []);
  client.close();
});

test("a server that lost our place is asked again on a new connection", async () => {
  const client = new Client({ url: URL_BASE });
  const seqs = seqsOf(client.resume("r"));
  sockets[0].open();
  sockets[0].give({ type: "accepted", ref: sockets[0].sent[0].ref, run_id: "r" }, event("r", 0));
  sockets[0].give({ type: "rejected", ref: null, code: "not_resumable", error: "the store failed" });
  await comeBack();
  sockets[1].open();
  sockets[1].give(event("r", 1, "done"));

  assert.deepEqual(sockets[1].sent.map(({ type, after }) => [type, after]), [["resume", 0]]);
  assert.deepEqual(await seqs, [0, 1]);
  client.close();
});

/** The events of a mode that leaves some out, each with the one before it. */
const linked = (runId) => [event(runId, 2), event(runId, 7), event(runId, 8), event(runId, 9, "done")].map(
  (frame, index) => ({ ...frame, after: [-1, 2, 7, 8][index] }),
);

for (const [mode, frames] of [
  ["events", (runId) => [0, 1, 2, 3].map((seq) => event(runId, seq, seq === 3 ? "done" : undefined))],
  ["messages", linked],
]) {
  for (const lost of [0, 1, 2]) {
    test(`a gap is not passed on in ${mode}: the log is asked again, once, where number ${lost} was lost`, async () => {
      const client = new Client({ url: URL_BASE });
      const run = client.send("hello", { mode });
      const seqs = seqsOf(run);
      const all = frames(run.id);
      const last = lost === 0 ? -1 : all[lost - 1].seq;
      sockets[0].open();
      sockets[0].give({ type: "accepted", ref: sockets[0].sent[0].ref, run_id: run.id });
      sockets[0].give(...all.filter((_, index) => index !== lost));
      const asked = sockets[0].sent.slice(1);
      sockets[0].give({ type: "accepted", ref: asked[0]?.ref, run_id: run.id });
      sockets[0].give(...all.slice(lost));

      assert.deepEqual(asked.map(({ type, after, mode }) => [type, after, mode]), [["resume", last, mode]]);
      assert.deepEqual(await seqs, all.map(({ seq }) => seq));
      client.close();
    });
  }
}

test("what comes again after a start that was sent twice is no gap", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello", { mode: "messages" });
  const seqs = seqsOf(run);
  const all = linked(run.id);
  sockets[0].open();
  sockets[0].give(...all.slice(0, 2), ...all);

  assert.equal(sockets[0].sent.length, 1);
  assert.deepEqual(await seqs, [2, 7, 8, 9]);
  client.close();
});

test("a link is the client's own affair: readers get events", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello", { mode: "messages" });
  sockets[0].open();
  sockets[0].give(...linked(run.id));
  const keys = new Set();
  for await (const event of run) keys.add(Object.keys(event).join());

  assert.deepEqual([...keys], ["type,data,seq,run_id,agent,timestamp"]);
  client.close();
});

test("without links the holes of another mode than events are no gaps", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello", { mode: "messages" });
  const seqs = seqsOf(run);
  sockets[0].open();
  sockets[0].give(event(run.id, 2), event(run.id, 7), event(run.id, 9, "done"));

  assert.deepEqual(await seqs, [2, 7, 9]);
  client.close();
});

test("a gap in SSE is not passed on: the log is asked again from where it was", async () => {
  const asked = [];
  const bodies = [];
  globalThis.fetch = async (url, { headers }) => {
    asked.push([String(url).slice(URL_BASE.length), headers.get("Last-Event-ID")]);
    return new Response(bodies.shift(), { headers: { "Content-Type": "text/event-stream" } });
  };
  const sse = (...frames) => frames.map((frame) => `data: ${JSON.stringify(frame)}\n\n`).join("");
  const all = linked("r");
  bodies.push(sse(...all.slice(1)), sse(all[0], all[2], all[3]), sse(...all.slice(1)));
  const client = new Client({ url: URL_BASE, transport: "sse" });
  const seqs = seqsOf(client.send("hello", { runId: "r", mode: "messages" }));
  for (let attempt = 0; attempt < 9; attempt += 1) await comeBack();

  assert.deepEqual(await seqs, [2, 7, 8, 9]);
  const again = "runs/r/events?mode=messages&linked=1";
  assert.deepEqual(asked, [["chat/stream?linked=1", null], [again, null], [again, "r:2"]]);
  client.close();
});

test("attempts to come back are made ever more slowly", async () => {
  const client = new Client({ url: URL_BASE });
  client.connect();
  const times = [];
  for (let attempt = 0; attempt < 8; attempt += 1) {
    const before = Date.now();
    sockets.at(-1).drop();
    await settle();
    const count = sockets.length;
    while (sockets.length === count) {
      mock.timers.tick(50);
      await settle();
    }
    times.push(Date.now() - before);
  }

  assert.ok(times[0] <= 400, String(times));
  assert.ok(times[3] > times[0] && times[5] > times[3], String(times));
  assert.ok(Math.max(...times) <= 15_050, String(times));
  client.close();
});

test("a refused start is thrown where its events are read", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  const seqs = seqsOf(run);
  sockets[0].open();
  sockets[0].give({ type: "rejected", ref: sockets[0].sent[0].ref, code: "session_busy", error: "busy" });

  await assert.rejects(seqs, (error) => error instanceof RejectedError && error.code === "session_busy");
  client.close();
});

test("a command that was sent in vain is sent again", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  sockets[0].open();
  sockets[0].give(event(run.id, 0));
  const denied = run.deny("c1", "no");
  sockets[0].drop();
  await comeBack();
  sockets[1].open();
  const { ref, ...frame } = sockets[1].sent.at(-1);
  sockets[1].give({ type: "accepted", ref, run_id: run.id });
  await denied;

  assert.deepEqual(frame, { type: "deny", call_id: "c1", reason: "no", run_id: run.id });

  const cancelled = run.cancel();
  sockets[1].give({ type: "rejected", ref: sockets[1].sent.at(-1).ref, code: "unknown_run", error: "" });

  await assert.rejects(cancelled, RejectedError);
  client.close();
});

test("several runs share one connection", async () => {
  const client = new Client({ url: URL_BASE });
  const [one, two] = [client.send("a"), client.send("b")];
  const both = Promise.all([seqsOf(one), seqsOf(two)]);
  sockets[0].open();
  sockets[0].give([event(one.id, 0), event(two.id, 0, "done"), event(one.id, 1, "done")]);

  assert.deepEqual(await both, [[0, 1], [0]]);
  assert.equal(sockets.length, 1);
  client.close();
});

test("where the server wants another token, it waits for one", async () => {
  globalThis.fetch = async () => new Response(null, { status: 401 });
  const client = new Client({ url: URL_BASE });
  client.connect();
  sockets[0].drop();
  await comeBack();

  assert.equal(client.state, "unauthorized");
  assert.equal(sockets.length, 1);

  client.token = "right";

  assert.equal(sockets[1].protocols[0], "flowtrio.token.right");
  client.close();
});

test("where no WebSocket comes through, events are read as SSE, resumed too", async () => {
  const asked = [];
  const bodies = [];
  globalThis.fetch = async (url, { method = "GET", headers, body }) => {
    const path = String(url).slice(URL_BASE.length);
    asked.push([method, path, headers.get("Last-Event-ID") ?? undefined, body]);
    if (path === "runs/-/events") return new Response("{}", { status: 404 });
    if (method === "POST" && path.endsWith("approve")) return new Response("{}");
    return new Response(bodies.shift(), { headers: { "Content-Type": "text/event-stream" } });
  };
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  const sse = (...events) => events.map((e) => `id: ${run.id}:${e.seq}\ndata: ${JSON.stringify(e)}\n\n`).join("");
  bodies.push(`retry: 1000\n\n: hi\n\n${sse(event(run.id, 0), event(run.id, 1))}data: {"cu`);
  bodies.push(sse(event(run.id, 1), event(run.id, 2), event(run.id, 3, "done")));
  const seqs = seqsOf(run);
  sockets[0].drop();
  await comeBack();
  sockets[1].drop();
  await comeBack();

  assert.equal(client.transport, "sse");

  await run.approve("c1");
  await comeBack();

  assert.deepEqual(await seqs, [0, 1, 2, 3]);
  const requests = asked.filter(([, path]) => !/-\/events|approve/.test(path));
  assert.ok(asked.some(([method, path]) => method === "POST" && path === `runs/${run.id}/approve`));
  assert.deepEqual(requests.map(([method, path, id]) => [method, path, id]), [
    ["POST", "chat/stream?linked=1", undefined],
    ["GET", `runs/${run.id}/events?mode=events&linked=1`, `${run.id}:1`],
  ]);
  assert.equal(JSON.parse(requests[0][3]).run_id, run.id);
  client.close();
});

test("an answer in SSE that ends with a refusal is asked again, and the refusal is no event", async () => {
  const bodies = [];
  const asked = [];
  globalThis.fetch = async (url, { headers }) => {
    const path = String(url).slice(URL_BASE.length);
    if (path === "runs/-/events") return new Response("{}", { status: 404 });
    asked.push(headers.get("Last-Event-ID") ?? undefined);
    return new Response(bodies.shift(), { headers: { "Content-Type": "text/event-stream" } });
  };
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello", { mode: "values" });
  const sse = (...events) => events.map((e) => `id: ${run.id}:${e.seq}\ndata: ${JSON.stringify(e)}\n\n`).join("");
  const refusal = { type: "rejected", ref: null, code: "store_failed", error: "the store failed" };
  bodies.push(`${sse(event(run.id, 0))}data: ${JSON.stringify(refusal)}\n\n`);
  bodies.push(sse(event(run.id, 1), event(run.id, 2, "done")));
  const seqs = seqsOf(run);
  sockets[0].drop();
  await comeBack();
  sockets[1].drop();
  await comeBack();
  await comeBack();

  assert.deepEqual(await seqs, [0, 1, 2]);
  assert.deepEqual(asked, [undefined, `${run.id}:0`]);
  client.close();
});

test("leaving the loop forgets the run on this side only", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  sockets[0].open();
  sockets[0].give(event(run.id, 0), event(run.id, 1));
  for await (const first of run) {
    assert.equal(first.seq, 0);
    break;
  }

  assert.deepEqual(sockets[0].sent.map(({ type }) => type), ["message"]);
  client.close();
});

test("a run that was left is followed anew, whatever of it is still on its way", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.resume("r1");
  const left = seqsOf(run);
  sockets[0].open();
  sockets[0].give({ type: "accepted", ref: 1, run_id: "r1" }, event("r1", 0));
  run.leave();
  const again = client.resume("r1", { snapshot: "log" });
  const seqs = seqsOf(again);
  const log = [event("r1", 0), event("r1", 1)];
  // What was sent to the one that left, and then the reply.
  sockets[0].give(
    event("r1", 0),
    event("r1", 1),
    { type: "accepted", ref: 2, run_id: "r1" },
    { ...event("r1", 4, "message_chunk", { chunk: "d", log }), after: -1 },
  );

  // A log of joined texts is of no use behind a part of them.
  assert.deepEqual(sockets[0].sent.slice(1), [
    { type: "resume", after: -1, snapshot: "log", run_id: "r1", mode: "events", ref: 2 },
    { type: "resume", after: 1, run_id: "r1", mode: "events", ref: 3 },
  ]);

  sockets[0].give({ type: "accepted", ref: 3, run_id: "r1" });
  for (let seq = 2; seq < 6; seq += 1) sockets[0].give(event("r1", seq, seq === 5 ? "done" : "message_chunk"));

  assert.deepEqual(await left, [0]);
  assert.deepEqual(await seqs, [0, 1, 2, 3, 4, 5]);
  client.close();
});

test("a compacted log comes as the events that it is made of", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.resume("r1", { snapshot: "log" });
  const events = [];
  const read = (async () => {
    for await (const one of run) events.push(one);
  })();
  sockets[0].open();
  const { run_id, ...first } = event("r1", 0, "message_chunk", { chunk: "abc" });
  sockets[0].give(
    { type: "accepted", ref: 1, run_id: "r1" },
    { ...event("r1", 4, "message_chunk", { chunk: "d", log: [first] }), after: -1 },
    { ...event("r1", 5, "done"), after: 4 },
  );
  await read;

  assert.deepEqual(events, [
    event("r1", 0, "message_chunk", { chunk: "abc" }),
    event("r1", 4, "message_chunk", { chunk: "d" }),
    event("r1", 5, "done"),
  ]);
  client.close();
});

test("an answer in SSE that was left is not kept open", async () => {
  let isOpen = true;
  globalThis.fetch = async (_, { signal }) => {
    signal.addEventListener("abort", () => (isOpen = false), { once: true });
    return new Response(new ReadableStream(), { headers: { "Content-Type": "text/event-stream" } });
  };
  const client = new Client({ url: URL_BASE, transport: "sse" });
  const run = client.resume("r1");
  const seqs = seqsOf(run);
  await settle();

  assert.ok(isOpen);

  run.leave();

  assert.ok(!isOpen);
  assert.deepEqual(await seqs, []);
  client.close();
});

test("closing ends what is read, and what waits for an answer", async () => {
  const client = new Client({ url: URL_BASE });
  const run = client.send("hello");
  const seqs = seqsOf(run);
  sockets[0].open();
  const cancelled = run.cancel();
  client.close();

  assert.deepEqual(await seqs, []);
  await assert.rejects(cancelled);
  assert.equal(client.state, "closed");
  assert.throws(() => client.send("again"));
});

test("ids are URL-safe and never the same", () => {
  const ids = new Set(Array.from({ length: 100 }, newId));

  assert.equal(ids.size, 100);
  assert.ok([...ids].every((id) => /^[0-9a-f]{32}$/.test(id)));
});

test("server-sent events are the same however their bytes come", async () => {
  const text = "\uFEFFretry: 1\r\n\r\n: beat\n\nid: r:0\ndata: {\"a\": \"ä\u2028\"}\r\n\r\ndata:x\rdata: y\r\rdata: cut";
  const bytes = new TextEncoder().encode(text);
  const read = async (size) => {
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
        controller.close();
      },
    });
    const found = [];
    for await (const data of readServerSentEvents(body)) found.push(data);
    return found;
  };
  for (const size of [1, 2, 3, 7, bytes.length]) {
    assert.deepEqual(await read(size), ['{"a": "ä\u2028"}', "x\ny"], `pieces of ${size}`);
  }
});
