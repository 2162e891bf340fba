/**
 * Images and files beside a message that is being written.
 *
 * A photo of a telephone has more in it than any model looks at, and takes long to send: it is made
 * smaller here. What is too much all the same is said before anything is sent; which types are taken
 * is the server's to say.
 */

import { button, el } from "./dom.js";

/**
 * A part of a message, as the server takes it.
 *
 * @typedef {object} Part
 * @property {"image" | "file"} type
 * @property {string} data In base64.
 * @property {string} media_type
 * @property {string} name
 */

/**
 * What is told of an image or a file.
 *
 * @typedef {object} Told
 * @property {string} kind
 * @property {string | null} media_type
 * @property {number | null} bytes
 * @property {string | null} name
 */

/** @typedef {{part: Part, told: Told, src: string | null}} Attachment */

const MOST_PARTS = 8;
const MOST_BYTES = 8 * 1024 * 1024;
/** Pixels of an image's longer side: no model looks at more. */
const MOST_PIXELS = 2048;
/** Bytes of an image from which on it is made smaller. */
const LARGE = 1024 * 1024;
/** Types that a canvas gives, and what is shown in the page. */
const SHOWN = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/** A size, for people. @param {number | null} bytes */
export function size(bytes) {
  if (bytes === null) return "";
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${Math.round(bytes / 1024)} KB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MB`;
}

/** What is said of one that is not, or not yet, seen. @param {Told} told */
export function chip({ kind, media_type, bytes, name }) {
  const said = [name ?? media_type ?? kind, size(bytes)].filter((text) => text !== "").join(" · ");
  return el("span", "chip", said);
}

/** An image, by an address of this page's own. @param {string} src @param {Told} told */
export function picture(src, { name, media_type }) {
  const image = el("img");
  image.src = src;
  image.alt = name ?? media_type ?? "image";
  return image;
}

/** Whether it may be shown as an image. @param {Told} told */
export function isPicture({ kind, media_type }) {
  return kind === "image" && SHOWN.includes(media_type ?? "");
}

/** The ones beside the message. */
export class Attachments {
  /** @type {Attachment[]} */ #all = [];
  /** @type {File[]} Those that are still being read, one after another. */ #unread = [];
  /** When all of them are there. */ settled = Promise.resolve();

  /**
   * @param {HTMLElement} list Where they are shown.
   * @param {(text: string) => void} tell Says why one is not taken.
   * @param {() => void} changed Told when they are others.
   */
  constructor(list, tell, changed) {
    this.list = list;
    this.tell = tell;
    this.changed = changed;
  }

  get isEmpty() {
    return this.#all.length === 0;
  }

  /** Whether some are not there yet. */
  get isReading() {
    return this.#unread.length > 0;
  }

  /** @param {File[]} files */
  add(files) {
    this.#unread.push(...files);
    this.#draw();
    // Each is weighed with those before it.
    for (const given of files) this.settled = this.settled.then(() => this.#read(given));
    return this.settled;
  }

  /** @param {File} given */
  async #read(given) {
    try {
      await this.#add(await smaller(given));
    } catch {
      this.tell(`${given.name} cannot be read.`);
    }
    this.#unread.shift();
    this.#draw();
  }

  /** @param {File} file */
  async #add(file) {
    const held = this.#all.reduce((sum, { told }) => sum + (told.bytes ?? 0), 0);
    if (file.size === 0) return this.tell(`${file.name} is empty.`);
    if (this.#all.length >= MOST_PARTS) return this.tell(`A message has at most ${MOST_PARTS} files.`);
    if (held + file.size > MOST_BYTES) {
      return this.tell(`${file.name} is too large: a message has at most ${size(MOST_BYTES)} of files.`);
    }
    const type = file.type.startsWith("image/") ? "image" : "file";
    const data = await base64(file);
    const told = { kind: type, media_type: file.type || null, bytes: file.size, name: file.name };
    const src = isPicture(told) ? URL.createObjectURL(file) : null;
    const part = /** @type {Part} */ ({ type, data, name: file.name });
    if (file.type !== "") part.media_type = file.type;
    this.#all.push({ part, told, src });
  }

  /** Give them, and have none. */
  take() {
    const all = this.#all;
    this.#all = [];
    this.#draw();
    return all;
  }

  /** Have them again, which could not be sent. @param {Attachment[]} those */
  put(those) {
    this.#all = [...those, ...this.#all];
    this.#draw();
  }

  #draw() {
    this.changed();
    this.list.hidden = this.isEmpty && !this.isReading;
    this.list.replaceChildren(
      ...this.#all.map((one) => {
        const leave = button("×", "quiet", () => {
          this.#all = this.#all.filter((other) => other !== one);
          if (one.src !== null) URL.revokeObjectURL(one.src);
          this.#draw();
        });
        leave.setAttribute("aria-label", `Leave out ${one.told.name}`);
        const shown = one.src === null ? chip(one.told) : picture(one.src, one.told);
        return el("li", "", shown, leave);
      }),
      ...this.#unread.map(({ name }) => el("li", "", el("span", "chip", `Reading ${name}`))),
    );
  }
}

/** A file's content in base64. @param {Blob} file @returns {Promise<string>} */
function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ""));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** An image as large as a model looks at it; any other file as it is. @param {File} file */
async function smaller(file) {
  if (!["image/png", "image/jpeg", "image/webp"].includes(file.type) || file.size < LARGE) return file;
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, MOST_PIXELS / Math.max(bitmap.width, bitmap.height));
  const canvas = el("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  /** @type {Blob | null} */
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, file.type, 0.9));
  return blob === null || blob.size >= file.size ? file : new File([blob], file.name, { type: blob.type });
}
