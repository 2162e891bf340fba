/** What a run spent: each reply of a model, and all together. */

import { duration, el } from "./dom.js";
import { costOf } from "./spent.js";

/** @typedef {import("./flowtrio.js").AgentEvent} AgentEvent */

const HEADS = ["Agent", "Model", "In", "Cached", "Out", "Reasoning", "Cost", "First token", "Took"];

/** @param {AgentEvent[]} events */
export function usageTable(events) {
  const replies = events.filter(({ type, data }) => type === "message_complete" && data.usage);
  const done = events.find(({ type }) => type === "done");
  if (replies.length === 0) return el("p", "empty", done ? "No model was asked, or it does not tell what it used." : "What its models used appears here, reply by reply.");
  const rows = replies.map(({ agent, data }) => row("td", [
    agent,
    data.model ?? data.requested_model ?? "",
    ...figures(data.usage),
    duration(data.first_token),
    duration(data.duration),
  ]));
  const body = el("tbody", "", ...rows);
  const table = el("table", "", el("thead", "", row("th", HEADS)), body);
  if (done) body.append(row("th", ["Together", "", ...figures(done.data.usage), "", duration(done.data.duration)]));
  const frame = el("div", "table", table);
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Usage");
  const isBound = done?.data.usage.quality === "lower_bound";
  return el("div", "markdown", frame, isBound ? el("p", "note", "At least: a reply was cut before its model told what it used.") : "");
}

/** @param {any} usage */
function figures({ prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens, cost }) {
  const counts = [prompt_tokens, cached_tokens, completion_tokens, reasoning_tokens].map((each) => String(each ?? 0));
  return [...counts, costOf({ cost, quality: "measured" }).replace("cost ", "") || "–"];
}

/** @param {"td" | "th"} tag @param {string[]} texts */
function row(tag, texts) {
  return el("tr", "", ...texts.map((text, place) => {
    const cell = el(tag, place >= 2 ? "end" : "", text);
    return cell;
  }));
}
