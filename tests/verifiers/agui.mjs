// Plays the part of an AG-UI client, by its own library: each line that comes in is one thing to do,
// and gets a line back. Events are checked by its schemas and its verifier, and applied to messages.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(`${process.env.FLOWTRIO_NODE_MODULES}/_.js`);
const { AbstractAgent, HttpAgent, buildResumeArray } = require("@ag-ui/client");
const { from } = require("rxjs");

const complaints = [];
console.warn = (...words) => complaints.push(words.map(String).join(" "));
console.error = console.warn;
process.on("unhandledRejection", (error) => complaints.push(String(error)));

// Gives events that were written down.
class Written extends AbstractAgent {
  events = [];
  run() {
    return from(this.events);
  }
}

// Reads a body of which only so many bytes arrive: then its connection is gone.
function cutting(bytes) {
  return async (url, init) => {
    const response = await fetch(url, init);
    const reader = response.body.getReader();
    let left = bytes;
    const body = new ReadableStream({
      async pull(controller) {
        const { done, value } = await reader.read();
        if (done || value.length >= left) {
          if (value) controller.enqueue(value.subarray(0, left));
          controller.close();
          await reader.cancel();
        } else {
          left -= value.length;
          controller.enqueue(value);
        }
      },
      cancel: (reason) => reader.cancel(reason),
    });
    return new Response(body, { status: response.status, headers: response.headers });
  };
}

let agent;

const todo = {
  // Begin anew with events that were written down.
  written({ threadId }) {
    agent = new Written({ threadId });
  },
  // Begin anew with a server.
  served({ url, threadId, headers }) {
    agent = new HttpAgent({ url, threadId, headers });
    agent.whole = agent.fetch;
  },
  // Ask for a run. `responses` answer the interrupts; `cut` is after how many bytes the connection is
  // lost, `abort` after which event the client stops.
  async run({ events, parameters = {}, say, state, messages, responses, cut, abort }) {
    if (events) agent.events = events;
    if (messages) agent.setMessages(messages);
    if (state !== undefined) agent.setState(state);
    for (const message of say ?? []) agent.addMessage(message);
    if (agent.whole) agent.fetch = cut === undefined ? agent.whole : cutting(cut);
    if (responses) parameters.resume = buildResumeArray(agent.pendingInterrupts, responses);
    const seen = { types: [], customs: [], raw: [] };
    const subscriber = {
      onEvent: ({ event }) => {
        seen.types.push(event.type);
        if (event.rawEvent) seen.raw.push(event.rawEvent);
        if (event.type === "RAW" && event.source === "flowtrio") seen.raw.push(event.event);
        if (event.type === "CUSTOM") seen.customs.push([event.name, event.value]);
        if (event.type === abort) agent.abortRun();
      },
      onRunStartedEvent: ({ event }) => void (seen.started = event),
      onRunErrorEvent: ({ event }) => void (seen.error = event),
      onRunFinishedEvent: ({ event, outcome, pendingToolCallIds }) => {
        Object.assign(seen, { outcome, pendingToolCallIds, usage: event.usage });
      },
    };
    try {
      const { result } = await agent.runAgent(parameters, subscriber);
      seen.result = result;
    } catch (error) {
      seen.refused = String(error);
    }
    await new Promise((resolve) => setImmediate(resolve));
    return {
      ...seen,
      messages: agent.messages,
      state: agent.state,
      interrupts: agent.pendingInterrupts,
      complaints: complaints.splice(0),
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { to, ...what } = JSON.parse(line);
  console.log(JSON.stringify((await todo[to](what)) ?? {}));
}
