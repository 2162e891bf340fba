/** What a person said: a text, and the images and files that came with it. */

import { chip, isPicture, picture } from "./attachments.js";
import { el } from "./dom.js";

/** @typedef {import("./attachments.js").Attachment} Attachment */
/** @typedef {import("./attachments.js").Told} Told */

export class Said {
  /** @type {Told[]} What came with it, as far as that is known. */ parts = [];

  /** @param {string} text @param {Attachment[]} [sent] */
  constructor(text, sent = []) {
    this.text = text;
    this.sent = sent;
    this.words = el("div", "said", text);
    this.words.dir = "auto";
    this.words.hidden = text === "";
    this.shown = el("div", "parts");
    this.element = el("div", "saying", this.shown, this.words);
    this.tell(sent.map(({ told }) => told));
  }

  /** Whether some of it is told of and not shown. */
  get lacksPictures() {
    return this.parts.some((told, place) => isPicture(told) && this.shown.children[place]?.tagName !== "IMG");
  }

  /** Say what came with it. @param {Told[]} parts */
  tell(parts) {
    if (this.parts.length === parts.length) return;
    this.parts = parts;
    this.shown.replaceChildren(...parts.map(chip));
    this.sent.forEach(({ src }, place) => this.showPicture(place, src));
  }

  /** Show one of them. @param {number} place @param {string | null} src */
  showPicture(place, src) {
    const told = this.parts[place];
    if (told === undefined || src === null || !isPicture(told)) return;
    this.shown.children[place]?.replaceWith(picture(src, told));
  }
}

/** What was said to a run that goes on, and was not taken yet: each until it is. */
export class Waiting {
  /** @type {Said[]} */ #all = [];
  element = el("div", "waiting");

  /** @param {string} text @param {Attachment[]} sent */
  add(text, sent) {
    const said = new Said(text, sent);
    said.element.append(el("p", "note", "Said before the next reply"));
    this.#all.push(said);
    this.element.append(said.element);
    return said;
  }

  /** It was taken here, or is not waited for. @param {Said} said */
  remove(said) {
    this.#all = this.#all.filter((other) => other !== said);
    said.element.remove();
  }

  /** It was taken there: give what came with it. @param {string} text @returns {Attachment[]} */
  take(text) {
    const said = this.#all.find((each) => each.text === text);
    if (said === undefined) return [];
    this.remove(said);
    return said.sent;
  }

  /** Nothing more is taken. */
  clear() {
    for (const said of this.#all) this.remove(said);
  }
}
