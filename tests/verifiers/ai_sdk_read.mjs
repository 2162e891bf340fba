// Reads answers as the AI SDK does, and says what it made of them.
//
// Standard input has a case a line: {"name", "answers": [{"body", "goesOn"}]}. Each body goes
// through the transport of a page, which refuses what its schema does not know, and into a message;
// one that goes on continues the message before it. A line comes out for each case: its messages,
// what was refused, and for each answer what a page would make of it that sends by itself: "nothing"
// at its end, and whether it would once all was approved or given that somebody is asked for.
import {createInterface} from "node:readline";
import {
  DefaultChatTransport,
  lastAssistantMessageIsCompleteWithApprovalResponses as isApproved,
  lastAssistantMessageIsCompleteWithToolCalls as isGiven,
  readUIMessageStream,
} from "ai";

const transport = new DefaultChatTransport();

async function read(body, before) {
  const refused = [];
  const errors = [];
  let message = before;
  const stream = transport.processResponseStream(new Blob([body]).stream());
  const onError = (error) => (error.name === "Error" ? errors : refused).push(error.message);
  const states = readUIMessageStream({message: structuredClone(before), stream, onError});
  for await (const state of states) message = state;
  return {message, refused, errors};
}

function sends(message) {
  return isApproved({messages: [message]}) || isGiven({messages: [message]});
}

// The message as its page has it once all is decided that the run waits for.
function decided(message) {
  const waiting = message.metadata?.flowtrio?.waitingFor ?? [];
  const states = {approval: "approval-responded", tool: "output-available"};
  const ids = new Map(waiting.map(({type, id}) => [id, states[type]]));
  const parts = message.parts.map((part) => {
    const state = ids.get(part.toolCallId);
    return state === undefined ? part : {...part, state};
  });
  return {...message, parts};
}

for await (const line of createInterface({input: process.stdin})) {
  const {name, answers} = JSON.parse(line);
  const messages = [];
  const refused = [];
  const errors = [];
  const sent = [];
  for (const {body, goesOn} of answers) {
    const told = await read(body, goesOn ? messages.pop() : undefined);
    messages.push(told.message);
    if (told.message !== undefined) {
      sent.push([sends(told.message), sends(decided(told.message))]);
    }
    refused.push(...told.refused);
    errors.push(...told.errors);
  }
  console.log(JSON.stringify({name, messages, refused, errors, sent}));
}
