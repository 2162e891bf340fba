/** What runs cost, for people. */

import { duration } from "./dom.js";

/** @param {any} usage */
export function tokensOf(usage) {
  return (usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0);
}

/** @param {any} usage @param {string} words */
function said(usage, words) {
  return `${usage.quality === "lower_bound" ? "≥ " : ""}${words}`;
}

/** A run's figures. @param {any} usage @param {number | null} seconds @param {number} events */
export function figuresOf(usage, seconds, events) {
  const tokens = tokensOf(usage);
  return [
    duration(seconds),
    tokens > 0 ? said(usage, `${tokens} tokens`) : "",
    costOf(usage),
    `${events} events`,
  ].filter((text) => text !== "").join(" · ");
}

/** What it cost in money, as far as that is known. @param {any} usage */
export function costOf(usage) {
  return usage?.cost ? `cost ${said(usage, short(usage.cost))}` : "";
}

/** A decimal, as exact as people look at it. @param {string} cost */
function short(cost) {
  const value = Number(cost);
  return value === 0 || value >= 0.01 ? value.toFixed(2) : value.toPrecision(2);
}

/**
 * What a conversation's runs cost together; empty where that says nothing.
 *
 * @param {any[]} usages
 */
export function totalOf(usages) {
  const known = usages.filter((usage) => tokensOf(usage) > 0);
  if (known.length < 2) return "";
  const isBound = known.some(({ quality }) => quality === "lower_bound");
  const tokens = known.reduce((sum, usage) => sum + tokensOf(usage), 0);
  const isPriced = known.every(({ cost }) => cost !== null && cost !== undefined);
  const cost = isPriced ? String(known.reduce((sum, usage) => sum + Number(usage.cost), 0)) : null;
  const together = { quality: isBound ? "lower_bound" : "exact", cost };
  const texts = [said(together, `${tokens} tokens`), costOf(together)];
  return `Conversation: ${texts.filter((text) => text !== "").join(" · ")}`;
}
