// A page's chat, as the AI SDK makes one, against a server of ours in another process.
import assert from "node:assert/strict";
import {connect, createServer} from "node:net";
import {once} from "node:events";
import {test} from "node:test";
import {
  AbstractChat,
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses as isApproved,
  lastAssistantMessageIsCompleteWithToolCalls as isGiven,
} from "ai";

const SITE = new URL(process.env.FLOWTRIO_SITE);

class State {
  status = "ready";
  error = undefined;
  constructor(messages, seen) {
    this.messages = messages;
    this.seen = seen;
  }
  pushMessage = (message) => {
    this.messages = [...this.messages, message];
    this.seen(this.messages);
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index, message) => {
    this.messages = this.messages.with(index, message);
    this.seen(this.messages);
  };
  snapshot = (value) => structuredClone(value);
}

class Chat extends AbstractChat {
  constructor({agent, site = SITE, messages = [], onSeen = () => {}, ...init}) {
    const api = new URL("/ai-sdk/chat", site).href;
    const last = () => this.messages.at(-1)?.id ?? "";
    const transport = new DefaultChatTransport({
      api,
      body: {agent},
      prepareReconnectToStreamRequest: ({id}) => ({
        api: `${api}/${id}/stream?message=${encodeURIComponent(last())}`,
      }),
    });
    super({
      sendAutomaticallyWhen: (given) => isApproved(given) || isGiven(given),
      ...init,
      transport,
      state: new State(messages, onSeen),
    });
  }
  get run() {
    return this.messages.at(-1).metadata.flowtrio;
  }
}

function texts(chat) {
  return chat.messages.map((message) =>
    message.parts.map((part) => (part.type === "text" ? part.text : "")).join(""),
  );
}

function tools(message) {
  return message.parts.filter((part) => part.toolCallId !== undefined);
}

// Until something holds of a chat: what it sends by itself is nobody's to wait for.
function until(holds) {
  let seen;
  const found = new Promise((resolve) => {
    seen = (messages) => holds(messages) && resolve();
  });
  return {found, onSeen: seen};
}

const isOver = (messages) => messages.at(-1).metadata?.flowtrio?.status === "completed";

test("two calls that wait at once, one approved and one denied", async () => {
  const over = until(isOver);
  const chat = new Chat({agent: "books", onSeen: over.onSeen});
  await chat.sendMessage({text: "two, please"});
  const asked = tools(chat.lastMessage);
  assert.deepEqual(asked.map((part) => part.state), ["approval-requested", "approval-requested"]);
  assert.equal(chat.run.waitingFor.length, 2);
  await chat.addToolApprovalResponse({id: asked[0].approval.id, approved: true});
  await chat.addToolApprovalResponse({
    id: asked[1].approval.id,
    approved: false,
    reason: "too dear",
  });
  await over.found;
  const [paris, rome] = tools(chat.lastMessage);
  assert.equal(chat.messages.length, 2);
  assert.deepEqual([paris.state, paris.output], ["output-available", "booked Paris"]);
  assert.deepEqual([rome.state, rome.approval.reason], ["output-denied", "too dear"]);
  assert.equal(texts(chat)[1], "Two. One of two.");
});

test("a question, which the user's next message answers", async () => {
  const chat = new Chat({agent: "asks"});
  await chat.sendMessage({text: "hi"});
  const question = chat.lastMessage.parts.find((part) => part.type === "data-question");
  assert.deepEqual([question.data.prompt, question.data.state], ["Which colour?", "open"]);
  assert.equal(chat.run.waitingFor[0].id, question.id);
  await chat.sendMessage({text: "blue"});
  assert.deepEqual(texts(chat), ["hi", "", "blue", "It is blue."]);
  assert.deepEqual(tools(chat.lastMessage).map((part) => [part.state, part.output]), [
    ["output-available", "blue"],
  ]);
  assert.equal(chat.status, "ready");
});

test("a tool that the page runs", async () => {
  const over = until(isOver);
  const chat = new Chat({
    agent: "locates",
    onSeen: over.onSeen,
    onToolCall: ({toolCall: {toolName, toolCallId}}) => {
      void chat.addToolOutput({tool: toolName, toolCallId, output: {city: "Rome"}});
    },
  });
  await chat.sendMessage({text: "where am I?"});
  await over.found;
  assert.equal(texts(chat)[1], "You are in Rome.");
});

test("stop, which ends the run too", async () => {
  const said = until((messages) => texts({messages}).at(-1) === "one ");
  const chat = new Chat({agent: "talks", onSeen: said.onSeen});
  const sent = chat.sendMessage({text: "hi"});
  await said.found;
  const {runId} = chat.run;
  const cancelled = await fetch(new URL(`/runs/${runId}/cancel`, SITE), {method: "POST"});
  assert.ok(cancelled.ok);
  await sent;
  assert.deepEqual([chat.status, chat.run.status], ["ready", "cancelled"]);
  await chat.stop();
  const again = await fetch(new URL(`/ai-sdk/chat/${chat.id}/stream`, SITE));
  assert.equal(again.status, 204);
  assert.equal(texts(chat)[1], "one ");
});

test("a page that is loaded again in the midst of an answer", async () => {
  const said = until((messages) => texts({messages}).at(-1) === "one ");
  const before = new Chat({agent: "talks", onSeen: said.onSeen});
  const sent = before.sendMessage({text: "hi"});
  await said.found;
  await before.stop();
  await sent;
  const kept = JSON.parse(JSON.stringify(before.messages));
  const more = until((messages) => texts({messages}).at(-1) === "one ");
  const chat = new Chat({agent: "talks", id: before.id, messages: kept, onSeen: more.onSeen});
  const resumed = chat.resumeStream();
  await more.found;
  const went = await fetch(new URL(`/go/${chat.run.runId}`, SITE), {method: "POST"});
  assert.ok(went.ok);
  await resumed;
  assert.deepEqual(texts(chat), ["hi", "one two"]);
  assert.equal(chat.status, "ready");
});

// A way to the server that breaks after some bytes of the first answer that goes through it.
async function breaking(bytes) {
  let left = bytes;
  const server = createServer((inner) => {
    const outer = connect(Number(SITE.port), SITE.hostname);
    inner.on("error", () => outer.destroy());
    outer.on("error", () => inner.destroy());
    inner.pipe(outer);
    outer.on("data", (data) => {
      const taken = data.subarray(0, left);
      left -= taken.length;
      inner.write(taken, () => left <= 0 && (inner.destroy(), outer.destroy()));
    });
    outer.on("close", () => inner.destroy());
    inner.on("close", () => outer.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const site = new URL(SITE);
  site.port = server.address().port;
  return {site, mend: () => (left = Infinity), close: () => server.close(), left: () => left};
}

async function breakAt(bytes) {
  const way = await breaking(bytes);
  const chat = new Chat({agent: "looks", site: way.site});
  await chat.sendMessage({text: "hi"});
  const was = chat.status;
  way.mend();
  if (was === "error") await chat.resumeStream();
  way.close();
  assert.equal(chat.status, "ready", `cut at ${bytes}: ${chat.error}`);
  assert.deepEqual(texts(chat), ["hi", "Let me look. It is sunny."], `cut at ${bytes}`);
  assert.deepEqual(tools(chat.lastMessage).map((part) => part.state), ["output-available"]);
  return was;
}

test("a connection that is dropped, at any byte", async () => {
  const way = await breaking(1e6);
  const whole = new Chat({agent: "looks", site: way.site});
  await whole.sendMessage({text: "hi"});
  const length = 1e6 - way.left();
  way.close();
  const step = Number(process.env.FLOWTRIO_DROP_EVERY ?? 23);
  const seen = {error: 0, ready: 0};
  for (let bytes = 1; bytes < length; bytes += step) seen[await breakAt(bytes)] += 1;
  assert.ok(seen.error > (length / step) * 0.8, JSON.stringify(seen));
});
