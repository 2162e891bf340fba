// Reads a stream to its end by the protocol's own client; writes the items and the last offset.
import { stream } from "@durable-streams/client";

const [url, offset, live] = process.argv.slice(2);
const mode = { "catch-up": false, "long-poll": "long-poll", sse: "sse" }[live];
const read = await stream({ url, offset, live: mode, json: true });
const items = [];
for await (const item of read.jsonStream()) items.push(item);
process.stdout.write(JSON.stringify({ items, offset: read.offset, closed: read.streamClosed }));
