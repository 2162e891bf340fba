/** Logs of every schema load for ever, in the page as well. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { Lanes } from "../../../flowtrio/page/static/lanes.js";

const GOLDEN = new URL("../../golden/", import.meta.url);
/** Those that a picture of the log has too; see tests/pictures/test_timeline.py. */
const LANES = JSON.parse(readFileSync(new URL("lanes.json", GOLDEN), "utf-8"));

function told({ kind, label, depth }) {
  return kind === "agent" ? `agent ${label}` : `${kind} ${label} ${depth}`;
}

for (const schema of readdirSync(GOLDEN).filter((name) => name.startsWith("schema-"))) {
  for (const name of readdirSync(new URL(`${schema}/`, GOLDEN))) {
    test(`${schema}: ${name} becomes lanes`, () => {
      const lines = readFileSync(new URL(`${schema}/${name}`, GOLDEN), "utf-8").trimEnd().split("\n");
      const lanes = new Lanes();
      for (const line of lines) lanes.add(JSON.parse(line));
      const bars = lanes.lanes.flatMap((lane) => lane.bars);

      const shared = lanes.lanes.filter(({ kind }) => kind !== "run" && kind !== "person");

      assert.equal(lanes.lanes[0].kind, "run");
      assert.deepEqual(shared.map(told).sort(), LANES[`${schema}/${name}`].both);
      assert.ok(bars.length > 1);
      assert.equal(bars.every((bar) => bar.end !== null), name !== "interrupted.jsonl");
    });
  }
}
