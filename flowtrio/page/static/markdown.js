/**
 * Markdown as models write it, as DOM nodes.
 *
 * What a model says is hostile input: nothing here makes HTML of a text. Two steps: {@link parse}
 * gives a tree of plain values, {@link Markdown} keeps nodes that show such a tree. HTML in the text
 * is shown as text, an image as a link to it, and a link only leads to an absolute address of a kind
 * that is named below. Every step is linear in the text, and nesting is bounded.
 */

import { copyButton } from "./dom.js";

/** Schemes that a link may have. */
const SCHEMES = new Set(["http:", "https:", "mailto:"]);
/** Levels of quotes, lists and emphasis; what is deeper is text. */
const DEEPEST = 12;

/**
 * @typedef {object} Block
 * @property {string} kind `paragraph`, `heading`, `code`, `quote`, `list`, `table` or `rule`.
 * @property {string} [text]
 * @property {number} [level] Of a heading.
 * @property {string} [language] Of code.
 * @property {Block[]} [blocks] Of a quote.
 * @property {Block[][]} [items] Of a list.
 * @property {number | null} [start] Of a list: its first number, null for bullets.
 * @property {string[][]} [rows] Of a table: its head first.
 * @property {string[]} [aligns] Of a table.
 */

/** @typedef {string | {kind: string, text?: string, href?: string, inlines?: Inline[]}} Inline */

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^\s`]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|(\d{1,9})[.)])( +|$)/;
const TABLE_RULE = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;

/**
 * The blocks of a text.
 *
 * @param {string} text
 * @param {number} [depth]
 * @returns {Block[]}
 */
export function parse(text, depth = 0) {
  return new Parser(text.split(/\r\n|\n|\r/), depth).blocks();
}

/**
 * Give headings the levels of an outline: a model may begin with any, and leave some out.
 *
 * @param {Block[]} blocks
 * @param {number[]} [above] The levels that the headings so far stand for.
 */
export function outline(blocks, above = []) {
  for (const block of blocks) {
    if (block.kind === "heading") {
      const level = block.level ?? 1;
      while (above.length > 0 && above[above.length - 1] >= level) above.pop();
      block.level = above.push(level);
    }
    for (const inside of [block.blocks ?? [], ...(block.items ?? [])]) outline(inside, above);
  }
  return blocks;
}

class Parser {
  #at = 0;

  /** @param {string[]} lines @param {number} depth */
  constructor(lines, depth) {
    this.lines = lines;
    this.depth = depth;
  }

  blocks() {
    /** @type {Block[]} */
    const found = [];
    while (this.#at < this.lines.length) {
      if (this.lines[this.#at].trim() === "") this.#at += 1;
      else found.push(this.#block());
    }
    return found;
  }

  /** @returns {Block} */
  #block() {
    const line = this.lines[this.#at];
    const fence = FENCE.exec(line);
    if (fence) return this.#code(fence[1], fence[2]);
    const heading = HEADING.exec(line);
    if (heading) {
      this.#at += 1;
      return { kind: "heading", level: heading[1].length, text: heading[2] ?? "" };
    }
    if (RULE.test(line)) {
      this.#at += 1;
      return { kind: "rule" };
    }
    if (this.depth < DEEPEST && QUOTE.test(line)) return this.#quote();
    if (this.depth < DEEPEST && ITEM.test(line)) return this.#list();
    if (this.#isTable()) return this.#table();
    return this.#paragraph();
  }

  /** @param {string} fence @param {string} language @returns {Block} */
  #code(fence, language) {
    const lines = [];
    const end = new RegExp(`^ {0,3}[${fence[0]}]{${fence.length},}\\s*$`);
    for (this.#at += 1; this.#at < this.lines.length; this.#at += 1) {
      const line = this.lines[this.#at];
      if (end.test(line)) {
        this.#at += 1;
        break;
      }
      lines.push(line);
    }
    return { kind: "code", language, text: lines.join("\n") };
  }

  /** @returns {Block} */
  #quote() {
    const lines = [];
    while (this.#at < this.lines.length && QUOTE.test(this.lines[this.#at])) {
      lines.push(this.lines[this.#at++].replace(QUOTE, ""));
    }
    return { kind: "quote", blocks: new Parser(lines, this.depth + 1).blocks() };
  }

  /** @returns {Block} */
  #list() {
    const first = /** @type {RegExpExecArray} */ (ITEM.exec(this.lines[this.#at]));
    const isNumbered = first[3] !== undefined;
    const items = [];
    for (;;) {
      const mark = ITEM.exec(this.lines[this.#at] ?? "");
      if (!mark || (mark[3] !== undefined) !== isNumbered) break;
      if (RULE.test(this.lines[this.#at])) break;
      items.push(this.#item(mark));
    }
    return { kind: "list", start: isNumbered ? Number(first[3]) : null, items };
  }

  /** @param {RegExpExecArray} mark */
  #item(mark) {
    const indent = Math.min(mark[0].length, mark[1].length + mark[2].length + 1);
    const lines = [this.lines[this.#at++].slice(mark[0].length)];
    while (this.#at < this.lines.length) {
      const line = this.lines[this.#at];
      const spaces = line.length - line.trimStart().length;
      const isBlank = spaces === line.length;
      if (isBlank && !this.#isIndented(this.#at + 1, indent)) break;
      if (!isBlank && spaces < indent && (ITEM.test(line) || this.#beginsBlock(line))) break;
      lines.push(line.slice(Math.min(spaces, indent)));
      this.#at += 1;
    }
    // Blank lines between two items belong to neither.
    let next = this.#at;
    while (next < this.lines.length && this.lines[next].trim() === "") next += 1;
    if (ITEM.test(this.lines[next] ?? "")) this.#at = next;
    return new Parser(lines, this.depth + 1).blocks();
  }

  /** @param {number} at @param {number} indent */
  #isIndented(at, indent) {
    const line = this.lines[at] ?? "";
    return line.trim() !== "" && line.length - line.trimStart().length >= indent;
  }

  #isTable() {
    const [head, rule] = [this.lines[this.#at], this.lines[this.#at + 1] ?? ""];
    return head.includes("|") && TABLE_RULE.test(rule) && cells(head).length === cells(rule).length;
  }

  /** @returns {Block} */
  #table() {
    const rows = [cells(this.lines[this.#at])];
    const aligns = cells(this.lines[this.#at + 1]).map(
      (cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start"),
    );
    for (this.#at += 2; (this.lines[this.#at] ?? "").includes("|"); this.#at += 1) {
      const row = cells(this.lines[this.#at]);
      rows.push(rows[0].map((_, column) => row[column] ?? ""));
    }
    return { kind: "table", rows, aligns };
  }

  /** @returns {Block} */
  #paragraph() {
    const lines = [this.lines[this.#at++].trimStart()];
    while (this.#at < this.lines.length) {
      const line = this.lines[this.#at];
      if (line.trim() === "" || this.#beginsBlock(line)) break;
      if (this.depth < DEEPEST && /^ {0,3}(?:[-*+]|1[.)]) +\S/.test(line)) break;
      lines.push(line.trimStart());
      this.#at += 1;
    }
    return { kind: "paragraph", text: lines.join("\n") };
  }

  /** @param {string} line */
  #beginsBlock(line) {
    const isQuote = this.depth < DEEPEST && QUOTE.test(line);
    return isQuote || FENCE.test(line) || HEADING.test(line) || RULE.test(line);
  }
}

/** @param {string} line */
function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  return inside.split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));
}

/** The marks that may begin something, each place the next of them. */
const MARK = /[\\`*_~[!<h$\n]/g;
const EMPHASIS = [
  ["***", "both"],
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "deleted"],
  ["*", "emphasis"],
  ["_", "emphasis"],
];
const WORD = /[\p{L}\p{N}]/u;

/**
 * The parts of a paragraph's text.
 *
 * @param {string} text
 * @param {number} [depth]
 * @returns {Inline[]}
 */
export function parseInlines(text, depth = 0) {
  /** @type {Inline[]} */
  const found = [];
  /** Closing marks that do not come again: looked for once only, so that the whole stays linear. */
  const missing = new Set();
  let plain = "";
  let at = 0;
  const add = (/** @type {Inline} */ part, /** @type {number} */ end) => {
    if (plain) found.push(plain);
    plain = "";
    found.push(part);
    at = end;
  };
  while (at < text.length) {
    MARK.lastIndex = at;
    const next = MARK.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    at = next;
    if (at >= text.length) break;
    if (text[at] === "\n") {
      // Two spaces or a backslash before it, and the line really ends here.
      const isHard = plain.endsWith("  ") || plain.endsWith("\\");
      if (isHard) {
        plain = plain.endsWith("\\") ? plain.slice(0, -1) : plain.trimEnd();
        add({ kind: "break" }, at + 1);
      } else {
        plain += " ";
        at += 1;
      }
      continue;
    }
    const part = readInline(text, at, depth, missing);
    if (part) {
      add(...part);
    } else if (text[at] === "\\" && /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) {
      plain += text[at + 1];
      at += 2;
    } else {
      plain += text[at++];
    }
  }
  if (plain) found.push(plain);
  return found;
}

/**
 * What begins at a mark, and where it ends; null if it is only text.
 *
 * @param {string} text
 * @param {number} at
 * @param {number} depth
 * @param {Set<string>} missing
 * @returns {[Inline, number] | null}
 */
function readInline(text, at, depth, missing) {
  switch (text[at]) {
    case "`":
      return readCode(text, at, missing);
    case "<":
    case "h":
      return readAddress(text, at);
    case "!":
      return text[at + 1] === "[" ? readLink(text, at + 1, depth, missing) : null;
    case "[":
      return readLink(text, at, depth, missing);
    case "\\":
    case "$":
      return readFormula(text, at, missing);
    default:
      return readEmphasis(text, at, depth, missing);
  }
}

/** @param {string} text @param {number} at @param {Set<string>} missing @returns {[Inline, number] | null} */
function readCode(text, at, missing) {
  let end = at;
  while (text[end] === "`") end += 1;
  const fence = text.slice(at, end);
  // A run of marks that is longer or shorter is none of its ends.
  let close = missing.has(fence) ? -1 : text.indexOf(fence, end);
  while (close >= 0 && (text[close + fence.length] === "`" || text[close - 1] === "`")) {
    while (text[close] === "`") close += 1;
    close = text.indexOf(fence, close);
  }
  if (close < 0) {
    missing.add(fence);
    return [fence, end];
  }
  const code = text.slice(end, close).replaceAll("\n", " ");
  return [{ kind: "code", text: /^ .*\S.* $/.test(code) ? code.slice(1, -1) : code }, close + fence.length];
}

/** How formulas begin and end. */
const FORMULAS = [
  ["$$", "$$"],
  ["\\[", "\\]"],
  ["\\(", "\\)"],
  ["$", "$"],
];

/**
 * A formula in LaTeX, as it was written: its marks are none of Markdown's.
 *
 * @param {string} text
 * @param {number} at
 * @param {Set<string>} missing
 * @returns {[Inline, number] | null}
 */
function readFormula(text, at, missing) {
  const [begin, close] = FORMULAS.find(([begin]) => text.startsWith(begin, at)) ?? ["", ""];
  if (!begin || missing.has(close)) return null;
  const inside = at + begin.length;
  const place = text.indexOf(close, inside);
  if (place < 0) {
    missing.add(close);
    return null;
  }
  const end = place + close.length;
  // Two prices in a sentence are no formula.
  if (begin === "$" && !/^\$(?![\s\d])[^\n]*\S\$$|^\$\d[^\n]*[\\^_=+*/{][^\n]*\S\$$/.test(text.slice(at, end))) return null;
  if (begin === "$" && WORD.test(text[end] ?? "")) return null;
  if (place === inside) return null;
  return [{ kind: "formula", text: text.slice(at, end) }, end];
}

/** @param {string} text @param {number} at @param {number} depth @param {Set<string>} missing @returns {[Inline, number] | null} */
function readEmphasis(text, at, depth, missing) {
  const [mark, kind] = EMPHASIS.find(([mark]) => text.startsWith(mark, at)) ?? ["", ""];
  if (!mark || depth >= DEEPEST || missing.has(mark)) return null;
  const inside = at + mark.length;
  if (/\s/.test(text[inside] ?? " ")) return null;
  if (mark[0] === "_" && WORD.test(text[at - 1] ?? "")) return null;
  let close = text.indexOf(mark, inside + 1);
  while (close >= 0 && !closes(text, close, mark)) close = text.indexOf(mark, close + mark.length);
  if (close < 0) {
    missing.add(mark);
    return null;
  }
  const inlines = parseInlines(text.slice(inside, close), depth + 1);
  const end = close + mark.length;
  if (kind === "both") return [{ kind: "strong", inlines: [{ kind: "emphasis", inlines }] }, end];
  return [{ kind, inlines }, end];
}

/** @param {string} text @param {number} at @param {string} mark */
function closes(text, at, mark) {
  if (/\s/.test(text[at - 1]) || text[at - 1] === "\\") return false;
  if (mark.length === 1 && (text[at + 1] === mark || text[at - 1] === mark)) return false;
  if (mark.length > 1 && text[at + mark.length] === mark[0]) return false;
  return mark[0] !== "_" || !WORD.test(text[at + mark.length] ?? "");
}

const LABEL = /\[((?:[^[\]\\]|\\.|\[[^[\]]{0,200}\]){0,1000})\]/y;
const TARGET = /\(\s*(?:<([^<>\n]{1,4000})>|((?:[^\s()\\]|\\.|\([^\s()]{0,400}\)){1,4000}))(?:\s+(?:"[^"]{0,400}"|'[^']{0,400}'))?\s*\)/y;

/** @param {string} text @param {number} at @param {number} depth @param {Set<string>} missing @returns {[Inline, number] | null} */
function readLink(text, at, depth, missing) {
  if (depth >= DEEPEST || missing.has("](")) return null;
  if (text.indexOf("](", at) < 0) {
    missing.add("](");
    return null;
  }
  LABEL.lastIndex = at;
  const label = LABEL.exec(text);
  if (!label) return null;
  TARGET.lastIndex = LABEL.lastIndex;
  const target = TARGET.exec(text);
  if (!target) return null;
  const end = TARGET.lastIndex;
  const inlines = parseInlines(label[1], DEEPEST);
  const href = safeAddress((target[1] ?? target[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1"));
  if (href === null) return [{ kind: "span", inlines }, end];
  return [{ kind: "link", href, inlines: inlines.length > 0 ? inlines : [href] }, end];
}

const BRACKETED = /<((?:https?:\/\/|mailto:)[^<>\s]{1,4000})>/y;
const BARE = /https?:\/\/[^\s<>"'`]{1,4000}/y;

/** @param {string} text @param {number} at @returns {[Inline, number] | null} */
function readAddress(text, at) {
  const pattern = text[at] === "<" ? BRACKETED : BARE;
  if (pattern === BARE && WORD.test(text[at - 1] ?? "")) return null;
  pattern.lastIndex = at;
  const match = pattern.exec(text);
  if (!match) return null;
  let said = match[1] ?? match[0];
  let end = pattern.lastIndex;
  if (pattern === BARE) {
    // The sentence's own marks are not the address's.
    const trimmed = said.replace(/[.,:;!?*_~)\]]+$/, (marks) => (said.includes("(") && marks[0] === ")" ? ")" : ""));
    end -= said.length - trimmed.length;
    said = trimmed;
  }
  const href = safeAddress(said);
  return href === null ? null : [{ kind: "link", href, inlines: [said] }, end];
}

/**
 * An address that a link may lead to, in its canonical form, or null.
 *
 * @param {string} address
 */
export function safeAddress(address) {
  try {
    // Without a base, so that a relative one leads nowhere.
    const url = new URL(address);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

// Nodes

/** @type {Record<string, string>} */
const TAGS = { strong: "strong", emphasis: "em", deleted: "del", code: "code", span: "span", link: "a", formula: "span" };

/** @param {Element} parent @param {string} text */
function fill(parent, text) {
  parent.append(...parseInlines(text).map(inlineNode));
}

/** @param {Inline} part @returns {Node} */
function inlineNode(part) {
  if (typeof part === "string") return document.createTextNode(part);
  if (part.kind === "break") return document.createElement("br");
  const node = document.createElement(TAGS[part.kind]);
  if (part.text !== undefined) node.textContent = part.text;
  if (part.kind === "formula") node.className = "formula";
  if (node instanceof HTMLAnchorElement && part.href !== undefined) {
    node.href = node.title = part.href;
    node.target = "_blank";
    node.rel = "noopener noreferrer nofollow";
  }
  node.append(...(part.inlines ?? []).map(inlineNode));
  return node;
}

/** @param {Block} block @returns {HTMLElement} */
function blockNode(block) {
  const node = makeBlock(block);
  node.dir = "auto";
  return node;
}

/** @param {Block} block @returns {HTMLElement} */
function makeBlock(block) {
  switch (block.kind) {
    case "heading": {
      // The page's own headings come first.
      const node = document.createElement(`h${Math.min(6, (block.level ?? 1) + 2)}`);
      fill(node, block.text ?? "");
      return node;
    }
    case "code":
      return codeNode(block);
    case "quote": {
      const node = document.createElement("blockquote");
      node.append(...(block.blocks ?? []).map(blockNode));
      return node;
    }
    case "list":
      return listNode(block);
    case "table":
      return tableNode(block);
    case "rule":
      return document.createElement("hr");
    default: {
      const node = document.createElement("p");
      fill(node, block.text ?? "");
      return node;
    }
  }
}

/** @param {Block} block */
function codeNode(block) {
  const figure = document.createElement("figure");
  figure.className = "code";
  const bar = document.createElement("figcaption");
  const language = document.createElement("span");
  language.textContent = block.language ?? "";
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  const code = document.createElement("code");
  code.textContent = block.text ?? "";
  bar.append(language, copyButton("", () => code.textContent ?? "", code));
  pre.append(code);
  figure.append(bar, pre);
  return figure;
}

const TASK = /^\[([ xX])\](?=\s)/;

/** @param {Block} block */
function listNode(block) {
  const list = document.createElement(block.start === null ? "ul" : "ol");
  if (list instanceof HTMLOListElement && block.start !== 1) list.start = block.start ?? 1;
  for (const blocks of block.items ?? []) {
    const item = document.createElement("li");
    // An item of one paragraph is set tight.
    if (blocks[0]?.kind === "paragraph") {
      const text = blocks[0].text ?? "";
      if (TASK.test(text)) item.className = "task";
      fill(item, text.replace(TASK, (_, mark) => (mark === " " ? "☐" : "☑")));
    }
    item.append(...blocks.slice(blocks[0]?.kind === "paragraph" ? 1 : 0).map(blockNode));
    list.append(item);
  }
  return list;
}

/** @param {Block} block */
function tableNode(block) {
  const frame = document.createElement("div");
  frame.className = "table";
  frame.tabIndex = 0;
  const table = document.createElement("table");
  (block.rows ?? []).forEach((row, number) => {
    const line = table.insertRow();
    row.forEach((text, column) => {
      const cell = document.createElement(number === 0 ? "th" : "td");
      cell.className = block.aligns?.[column] ?? "start";
      fill(cell, text);
      line.append(cell);
    });
  });
  frame.append(table);
  return frame;
}

/** How many characters two texts begin with alike. @param {string} one @param {string} other */
function alike(one, other) {
  // Nearly always one is the beginning of the other, which is told at once.
  if (other.startsWith(one)) return one.length;
  let same = 0;
  while (same < one.length && one[same] === other[same]) same += 1;
  return same;
}

/**
 * Make a node like another one, and leave alone what is alike: what a person selected stays so.
 *
 * @param {ChildNode} old
 * @param {ChildNode} fresh
 */
function renew(old, fresh) {
  if (old.nodeName !== fresh.nodeName) return old.replaceWith(fresh);
  if (old instanceof Text && fresh instanceof Text) {
    const same = alike(old.data, fresh.data);
    if (same < old.length || same < fresh.length) {
      old.replaceData(same, old.length - same, fresh.data.slice(same));
    }
    return;
  }
  if (old instanceof Element && fresh instanceof Element) {
    for (const name of old.getAttributeNames()) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const name of fresh.getAttributeNames()) {
      const value = fresh.getAttribute(name) ?? "";
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
  }
  const [olds, freshes] = [[...old.childNodes], [...fresh.childNodes]];
  freshes.forEach((node, place) => {
    if (place < olds.length) renew(olds[place], node);
    else old.appendChild(node);
  });
  for (const node of olds.slice(freshes.length)) node.remove();
}

/** Nodes that show a text which grows: what has not changed is left alone. */
export class Markdown {
  /** @type {string[]} What each child of the element was made of. */ #made = [];

  /** @param {HTMLElement} element Whose children they are. */
  constructor(element) {
    this.element = element;
  }

  /** @param {string} text */
  show(text) {
    const blocks = outline(parse(text));
    blocks.forEach((block, place) => {
      const source = JSON.stringify(block);
      if (this.#made[place] === source) return;
      this.#made[place] = source;
      const node = blockNode(block);
      const old = this.element.children[place];
      if (old) renew(old, node);
      else this.element.append(node);
    });
    this.#made.length = blocks.length;
    while (this.element.children.length > blocks.length) this.element.lastElementChild?.remove();
  }
}
