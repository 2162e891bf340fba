/** The timeline: a run's lanes, drawn while it runs. */

import { button, duration, el } from "./dom.js";

/** @typedef {import("./lanes.js").Lanes} Lanes */
/** @typedef {import("./lanes.js").Lane} Lane */
/** @typedef {import("./lanes.js").Bar} Bar */

/** Widths of the steps between two ticks, in seconds. */
const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
const MOST_TICKS = 6;
const MOST_ZOOM = 256;

const NAMES = { said: "you said something", waiting_for_input: "waits for input", waiting_for_approval: "waits for approval" };

export class Timeline {
  /** @type {Lanes | null} */ #lanes = null;
  /** When the newest event was taken, by this page's clock. */
  #heard = 0;
  /** @type {Map<Bar, HTMLElement>} */ #nodes = new Map();
  /** @type {Map<Bar, number>} Those that have ended: the span for which they stand where they belong. */ #settled = new Map();
  /** @type {Map<Lane, HTMLElement>} */ #tracks = new Map();
  #isDrawn = true;
  /** How many times wider than its place the whole run is drawn. */
  #zoom = 1;

  /**
   * @param {HTMLElement} element Where it is drawn.
   * @param {(seq: number) => void} onSelect Asked to show the event that began a bar.
   */
  constructor(element, onSelect) {
    this.element = element;
    this.onSelect = onSelect;
    this.axis = el("div", "axis");
    this.axis.setAttribute("aria-hidden", "true");
    this.list = el("ol", "lanes");
    this.empty = el("p", "empty", "A run's model, tools and agents appear here, each in a lane of its own.");
    this.closer = button("+", "quiet", () => this.zoom(2));
    this.closer.setAttribute("aria-label", "Zoom in");
    this.wider = button("−", "quiet", () => this.zoom(0.5));
    this.wider.setAttribute("aria-label", "Zoom out");
    this.whole = button("Whole run", "quiet", () => this.zoom(0));
    this.bar = el("div", "zoom", this.closer, this.wider, this.whole);
    element.append(this.empty, this.bar, this.axis, this.list);
    setInterval(() => this.#lanes && !this.#lanes.isOver && this.draw(), 100);
  }

  /** Show a run. @param {Lanes | null} lanes */
  show(lanes) {
    this.#lanes = lanes;
    this.#nodes.clear();
    this.#settled.clear();
    this.#tracks.clear();
    this.list.replaceChildren();
    this.axis.replaceChildren();
    this.zoom(0);
    this.changed();
  }

  /** Draw it so many times larger; what is in the middle stays there. @param {number} times 0 for the whole. */
  zoom(times) {
    const { element } = this;
    const before = this.#zoom;
    this.#zoom = Math.min(MOST_ZOOM, Math.max(1, times * before));
    element.style.setProperty("--zoom", String(this.#zoom));
    this.closer.disabled = this.#zoom === MOST_ZOOM;
    this.wider.disabled = this.whole.disabled = this.#zoom === 1;
    const middle = element.scrollLeft + element.clientWidth / 2;
    this.draw();
    element.scrollLeft = (middle * this.#zoom) / before - element.clientWidth / 2;
  }

  /** The run that is shown has a new event. */
  changed() {
    this.#heard = performance.now();
    if (!this.#isDrawn) return;
    this.#isDrawn = false;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.#isDrawn = true;
    const lanes = this.#lanes;
    this.empty.hidden = lanes !== null;
    this.bar.hidden = lanes === null;
    if (lanes === null || this.element.offsetParent === null) return;
    const since = lanes.isOver ? 0 : (performance.now() - this.#heard) / 1000;
    const now = lanes.now + since;
    // Some room to the right, so that not every bar moves with every frame.
    const span = lanes.isOver ? Math.max(now, 0.1) * 1.02 : stretch(now);
    this.#drawAxis(span);
    lanes.lanes.forEach((lane, place) => this.#drawLane(lane, place, now, span));
  }

  /** @param {number} span */
  #drawAxis(span) {
    const most = MOST_TICKS * this.#zoom;
    const step = STEPS.find((step) => span / step <= most) ?? span / most;
    const ticks = [];
    // The last one has room for its text.
    for (let at = 0; at <= span * 0.93; at += step) {
      const text = step < 1 ? `${at.toFixed(step < 0.1 ? 3 : 1)} s` : duration(at).replace(".0 s", " s");
      const tick = el("span", "tick", at === 0 ? "0" : text);
      tick.style.insetInlineStart = `${(100 * at) / span}%`;
      ticks.push(tick);
    }
    this.axis.replaceChildren(el("div", "ticks", ...ticks));
  }

  /** @param {Lane} lane @param {number} place @param {number} now @param {number} span */
  #drawLane(lane, place, now, span) {
    let track = this.#tracks.get(lane);
    if (track === undefined) {
      track = el("ol", "track");
      const label = el("span", "label", lane.label);
      label.title = lane.label;
      label.style.paddingInlineStart = `${lane.depth * 0.7}rem`;
      const row = el("li", "lane", label, track);
      row.dataset.kind = lane.kind;
      row.dataset.lane = lane.label;
      this.#tracks.set(lane, track);
      this.list.insertBefore(row, this.list.children[place] ?? null);
    }
    const rows = String(lane.rows);
    // What is said again is made anew for all that is in it.
    if (track.style.getPropertyValue("--rows") !== rows) track.style.setProperty("--rows", rows);
    for (const bar of lane.bars) {
      if (this.#settled.get(bar) === span) continue;
      this.#drawBar(bar, track, now, span);
      if (bar.end !== null) this.#settled.set(bar, span);
    }
  }

  /** @param {Bar} bar @param {HTMLElement} track @param {number} now @param {number} span */
  #drawBar(bar, track, now, span) {
    let node = this.#nodes.get(bar);
    if (node === undefined) {
      node = el("li", "", button("", "bar", () => this.onSelect(bar.seq)));
      node.style.setProperty("--row", String(bar.row));
      this.#nodes.set(bar, node);
      track.append(node);
    }
    const end = bar.end ?? now;
    node.style.insetInlineStart = `${(100 * bar.start) / span}%`;
    node.style.width = `${(100 * (end - bar.start)) / span}%`;
    const shown = /** @type {HTMLElement} */ (node.firstElementChild);
    shown.dataset.outcome = bar.outcome;
    shown.dataset.label = bar.label;
    const name = { ...NAMES }[bar.label] ?? bar.label;
    const said = `${name}, ${bar.outcome}: ${duration(end - bar.start)}, from ${duration(bar.start)}`;
    if (shown.title !== said) shown.title = said;
    if (bar.end !== null || !shown.hasAttribute("aria-label")) shown.setAttribute("aria-label", said);
    this.#drawMarks(bar, shown, end);
  }

  /** @param {Bar} bar @param {HTMLElement} node @param {number} end */
  #drawMarks(bar, node, end) {
    while (node.childElementCount < bar.marks.length) node.append(el("i"));
    bar.marks.forEach((at, number) => {
      const part = (at - bar.start) / Math.max(end - bar.start, 1e-9);
      /** @type {HTMLElement} */ (node.children[number]).style.insetInlineStart = `${100 * part}%`;
    });
  }
}

/** The span to draw for a run that goes on: it grows in steps. @param {number} now */
function stretch(now) {
  let span = 1;
  while (span < now * 1.05) span *= 1.25;
  return span;
}
