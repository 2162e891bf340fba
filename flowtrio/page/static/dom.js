/** Small helpers to make nodes; text is always text. */

/**
 * Make an element.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function el(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/**
 * Make a button that does something.
 *
 * @param {string} label
 * @param {string} className
 * @param {() => void} action
 */
export function button(label, className, action) {
  const node = el("button", className, label);
  node.type = "button";
  node.addEventListener("click", action);
  return node;
}

/**
 * Make a button that copies a text. Where a page may not copy, as on plain HTTP, what says it is left
 * selected.
 *
 * @param {string} className
 * @param {() => string} text
 * @param {Element} element What says it.
 */
export function copyButton(className, text, element) {
  const node = button("Copy", className, async () => {
    node.textContent = (await copyText(text(), element)) ? "Copied" : "Selected, not copied";
  });
  return node;
}

/** @param {string} text @param {Element} element */
async function copyText(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection()?.selectAllChildren(element);
    return document.execCommand("copy");
  }
}

/**
 * The element of an id; it has to be there.
 *
 * @template {HTMLElement} Kind
 * @param {string} id
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function byId(id, kind) {
  const node = document.getElementById(id);
  if (!(node instanceof kind)) throw new TypeError(`the page has no ${kind.name} #${id}`);
  return node;
}

/** Seconds, for people. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.0995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const [minutes, rest] = [Math.floor(seconds / 60), Math.round(seconds % 60)];
  return rest === 0 ? `${minutes} min` : `${minutes} min ${rest} s`;
}

/** A JSON value on one line, cut where it is long. @param {unknown} value @param {number} [longest] */
export function brief(value, longest = 120) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > longest ? `${text.slice(0, longest - 1)}…` : text;
}

/** A tool's arguments on one line. @param {Record<string, unknown>} values */
export function briefArguments(values) {
  const said = Object.entries(values).map(([key, value]) => `${key}: ${brief(value, 60)}`);
  return brief(said.join(", "), 140);
}

/** A JSON value to read at leisure. @param {unknown} value */
export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
