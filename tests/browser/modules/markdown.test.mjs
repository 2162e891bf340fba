/** Markdown to a tree of values. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { parse, parseInlines, safeAddress } from "../../../flowtrio/page/static/markdown.js";

/** A short way to write inlines down. */
function short(parts) {
  return parts.map((p) => (typeof p === "string" ? p : [p.kind, p.href ?? p.text, ...short(p.inlines ?? [])].filter(Boolean)));
}

const INLINES = [
  ["plain", ["plain"]],
  ["a *b **c** d*", ["a ", ["emphasis", "b ", ["strong", "c"], " d"]]],
  ["**a *b* c**", [["strong", "a ", ["emphasis", "b"], " c"]]],
  ["***both***", [["strong", ["emphasis", "both"]]]],
  ["~~gone~~", [["deleted", "gone"]]],
  ["snake_case_name", ["snake_case_name"]],
  ["2 * 3 * 4", ["2 * 3 * 4"]],
  ["**not closed", ["**not closed"]],
  ["`a*b*`", [["code", "a*b*"]]],
  ["``a`b``", [["code", "a`b"]]],
  ["\\*no\\*", ["*no*"]],
  ["one  \ntwo\nthree", ["one", ["break"], "two three"]],
  ["[x](https://a.example/b_(c))", [["link", "https://a.example/b_(c)", "x"]]],
  ["![x](https://a.example/i.png)", [["link", "https://a.example/i.png", "x"]]],
  ["see https://a.example/b, and", ["see ", ["link", "https://a.example/b", "https://a.example/b"], ", and"]],
  ["[x](javascript:alert(1))", [["span", "x"]]],
  ["<b>text</b>", ["<b>text</b>"]],
  ["so \\(a_1 * b_2 * c\\)", ["so ", ["formula", "\\(a_1 * b_2 * c\\)"]]],
  ["\\[\n\\frac{1}{2} \\\\\nx_1_\n\\]", [["formula", "\\[\n\\frac{1}{2} \\\\\nx_1_\n\\]"]]],
  ["$$x*y*z$$", [["formula", "$$x*y*z$$"]]],
  ["$a_1 * b_2 * c$, then", [["formula", "$a_1 * b_2 * c$"], ", then"]],
  ["$2^n *k*$", [["formula", "$2^n *k*$"]]],
  ["$5 and *more* for $6", ["$5 and ", ["emphasis", "more"], " for $6"]],
  ["\\$5 and $x", ["$5 and $x"]],
  ["\\frac{a}{b} and \\alpha", ["\\frac{a}{b} and \\alpha"]],
];

for (const [text, expected] of INLINES) {
  test(`inlines of ${JSON.stringify(text)}`, () => assert.deepEqual(short(parseInlines(text)), expected));
}

test("blocks", () => {
  const kinds = parse("# H\n\ntext\n> quote\n\n- a\n- b\n  - c\n\n1. x\n\n---\n\n| a | b |\n|---|--:|\n| 1 |\n\n```py\ncode\n");

  assert.deepEqual(kinds.map(({ kind }) => kind), ["heading", "paragraph", "quote", "list", "list", "rule", "table", "code"]);
  assert.equal(kinds[3].items[1][1].kind, "list");
  assert.deepEqual(kinds[6].rows, [["a", "b"], ["1", ""]]);
  assert.equal(kinds[7].text, "code\n");
});

for (const address of ["javascript:alert(1)", "JAVASCRIPT:x", " javascript:x", "java\nscript:x", "data:text/html,x", "vbscript:x", "blob:x", "file:///x", "//a.example", "/a", "a", ""]) {
  test(`no link leads to ${JSON.stringify(address)}`, () => assert.equal(safeAddress(address), null));
}

const HOSTILE = {
  dollars: "$a ".repeat(50_000), formulas: "\\(".repeat(50_000), prices: "$1".repeat(50_000),
  stars: "*a".repeat(50_000), mixed: "*a **b ".repeat(25_000), underscores: "_a ".repeat(50_000),
  brackets: "[".repeat(100_000), links: "[a](".repeat(50_000), ticks: Array.from({ length: 400 }, (_, i) => `${"`".repeat(i + 1)}a`).join(" "),
  quotes: ">".repeat(100_000), lists: "- ".repeat(50_000), pipes: `${"|".repeat(50_000)}\n${"|-".repeat(50_000)}`,
  spaces: `# ${" ".repeat(100_000)}x`, rule: `${"* ".repeat(50_000)}x`, blanks: `- a\n${"\n".repeat(50_000)}b`,
};

for (const [name, text] of Object.entries(HOSTILE)) {
  test(`${name} without end take no time without end`, { timeout: 20_000 }, () => {
    for (const block of parse(text)) parseInlines(block.text ?? "");
  });
}
