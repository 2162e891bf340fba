/** What runs cost, in words. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { figuresOf, totalOf } from "../../../flowtrio/page/static/spent.js";

const usage = (prompt_tokens, cost = null, quality = "measured") =>
  ({ prompt_tokens, completion_tokens: 1, cost, quality });

test("a run's figures leave out what is not known", () => {
  assert.equal(figuresOf(null, 1.23, 4), "1.2 s · 4 events");
  assert.equal(figuresOf(usage(9), 2, 4), "2.0 s · 10 tokens · 4 events");
  assert.equal(figuresOf(usage(9, "0"), null, 4), "10 tokens · cost 0.00 · 4 events");
  assert.equal(figuresOf(usage(9, "0.000123", "lower_bound"), 2, 4), "2.0 s · ≥ 10 tokens · cost ≥ 0.00012 · 4 events");
});

test("a conversation is added up, and priced where all of it is", () => {
  assert.equal(totalOf([usage(9)]), "");
  assert.equal(totalOf([usage(9), null, usage(4)]), "Conversation: 15 tokens");
  assert.equal(totalOf([usage(9, "1"), usage(4)]), "Conversation: 15 tokens");
  assert.equal(totalOf([usage(9, "1"), usage(4, "0.5", "lower_bound")]), "Conversation: ≥ 15 tokens · cost ≥ 1.50");
});
