/** A run's events as lanes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Lanes } from "../../../flowtrio/page/static/lanes.js";

function fold(...events) {
  const lanes = new Lanes();
  events.forEach(([at, type, data, agent = "root"], seq) =>
    lanes.add({ type, data, agent, seq, run_id: "r", timestamp: 100 + at }));
  return lanes;
}

const call = (id, name) => ({ call_id: id, tool_name: name });

test("calls of one tool at once lie in rows of one lane", () => {
  const { lanes } = fold(
    [0, "tool_call_start", call("c1", "f")],
    [1, "tool_call_start", call("c2", "f")],
    [2, "tool_progress", call("c2", "f")],
    [3, "tool_call_end", { ...call("c1", "f"), outcome: "ok" }],
    [4, "tool_call_start", call("c3", "f")],
  );

  assert.equal(lanes.length, 1);
  assert.equal(lanes[0].rows, 2);
  assert.deepEqual(lanes[0].bars.map(({ row, start, end, outcome }) => [row, start, end, outcome]), [
    [0, 0, 3, "ok"], [1, 1, null, "running"], [0, 4, null, "running"],
  ]);
  assert.deepEqual(lanes[0].bars[1].marks, [2]);
});

test("a nested agent's lanes stand below its own, the run's first, the person's last", () => {
  const { lanes } = fold(
    [0, "state_change", { new_status: "running" }],
    [0, "approval_required", call("c1", "f")],
    [1, "agent_start", { agent: "root/a" }, "root/a"],
    [1, "tool_call_start", call("c2", "g")],
    [2, "message_chunk", { message_id: "m1" }, "root/a"],
    [2, "message_chunk", { message_id: "m2" }],
  );

  assert.deepEqual(lanes.map(({ kind, label, depth }) => [kind, label, depth]), [
    ["run", "run", 0], ["agent", "a", 1], ["model", "model", 1], ["tool", "g", 0], ["model", "model", 0], ["person", "you", 0],
  ]);
});

test("a wait for approval ends with the call's start, or with its end", () => {
  const { lanes } = fold(
    [0, "approval_required", call("c1", "f")],
    [1, "approval_required", call("c2", "f")],
    [2, "tool_call_start", call("c1", "f")],
    [3, "tool_call_end", { ...call("c2", "f"), outcome: "denied" }],
  );
  const waits = lanes.find(({ kind }) => kind === "person").bars;

  assert.deepEqual(waits.map(({ end, outcome }) => [end, outcome]), [[2, "ok"], [3, "denied"]]);
});

test("what a person says meanwhile stands in their lane, where it was taken", () => {
  const { lanes } = fold(
    [0, "tool_call_start", call("c1", "f")],
    [1, "user_message", { message: "hurry", parts: [] }],
    [2, "user_message", { message: "now", parts: [] }],
    [3, "tool_call_end", { ...call("c1", "f"), outcome: "ok" }],
  );
  const { label, bars, rows } = lanes.at(-1);

  assert.deepEqual([label, rows], ["you", 1]);
  assert.deepEqual(bars.map(({ label, start, end, seq }) => [label, start, end, seq]), [
    ["said", 1, 1, 1], ["said", 2, 2, 2],
  ]);
});

test("a message ends as its model ended, a status with the next one", () => {
  const { lanes, isOver } = fold(
    [0, "state_change", { new_status: "running" }],
    [1, "message_chunk", { message_id: "m1" }],
    [2, "state_change", { new_status: "running", reason: "thinking" }],
    [3, "message_complete", { message_id: "m1", finish_reason: "cancelled" }],
    [4, "state_change", { new_status: "cancelled" }],
    [5, "done", {}],
  );

  assert.deepEqual(lanes[0].bars.map(({ label, start, end }) => [label, start, end]), [
    ["running", 0, 4], ["cancelled", 4, 4],
  ]);
  assert.deepEqual(lanes[1].bars.map(({ end, outcome }) => [end, outcome]), [[3, "cancelled"]]);
  assert.ok(isOver);
});
