/**
 * Where a message is written: its text and its files, sent by a button or by Enter.
 *
 * While a run goes on, what is sent is said to it before its next reply; what is sent by *Now*, or
 * by Ctrl+Enter, cuts the reply that is being written.
 */

import { Attachments } from "./attachments.js";
import { byId } from "./dom.js";

/** @typedef {import("./attachments.js").Attachment} Attachment */

/**
 * @typedef {object} Message
 * @property {string} text
 * @property {Attachment[]} sent
 */

export class Composer {
  #form = byId("composer", HTMLFormElement);
  #attach = byId("attach", HTMLButtonElement);
  #files = byId("files", HTMLInputElement);
  #now = byId("now", HTMLButtonElement);
  #attachments;
  #isRunning = false;

  /**
   * @param {object} wired
   * @param {(isNow: boolean) => void} wired.send A person wants to send what stands here.
   * @param {(text: string) => void} wired.tell Says what is not taken, and why.
   * @param {(text: string) => void} wired.draft Told what stands here, as it changes.
   * @param {HTMLElement} wired.place Where files may be dropped too.
   */
  constructor({ send, tell, draft, place }) {
    this.field = byId("message", HTMLTextAreaElement);
    this.#attachments = new Attachments(byId("attachments", HTMLElement), tell, () => this.#show());
    this.draft = draft;
    // What was put beside a message goes with it, also where it has to be read first.
    const sendAll = (/** @type {boolean} */ isNow) => {
      if (this.#attachments.isReading) this.#attachments.settled.then(() => send(isNow));
      else send(isNow);
    };
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      sendAll(false);
    });
    this.#now.addEventListener("click", () => sendAll(true));
    this.field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      sendAll(this.#isRunning && (event.ctrlKey || event.metaKey));
    });
    this.field.addEventListener("input", () => {
      this.#changed();
      const { value, maxLength } = this.field;
      if (value.length >= maxLength) tell(`A message has at most ${maxLength} characters: what was more is left out.`);
    });
    this.#attach.addEventListener("click", () => this.#files.click());
    this.#files.addEventListener("change", async () => {
      await this.#attachments.add([...(this.#files.files ?? [])]);
      // The same file may be chosen again.
      this.#files.value = "";
      this.field.focus();
    });
    this.field.addEventListener("paste", (event) => {
      const files = [...(event.clipboardData?.files ?? [])];
      if (files.length === 0) return;
      event.preventDefault();
      this.#attachments.add(files);
    });
    for (const where of [place, this.#form]) {
      where.addEventListener("dragover", (event) => event.preventDefault());
      where.addEventListener("drop", (event) => {
        event.preventDefault();
        this.#attachments.add([...(event.dataTransfer?.files ?? [])]);
      });
    }
  }

  get isEmpty() {
    return this.field.value.trim() === "" && this.#attachments.isEmpty;
  }

  /** Whether a run goes on, which what is sent is said to. @param {boolean} isRunning */
  set isRunning(isRunning) {
    if (this.#isRunning === isRunning) return;
    this.#isRunning = isRunning;
    this.field.placeholder = isRunning ? "Say more" : "Message";
    this.#show();
  }

  /** Give what is to be sent, and have nothing. @returns {Message} */
  take() {
    // Half a character is none that the server could have.
    const text = this.field.value.trim().replace(/\p{Surrogate}/gu, "\ufffd");
    this.#write("");
    return { text, sent: this.#attachments.take() };
  }

  /** Have what could not be sent again, or something to be sent anew, before what stands here. @param {Message} message */
  put({ text, sent }) {
    const there = this.field.value;
    this.#write(there === "" || there === text ? text : `${text}\n${there}`.trim());
    this.#attachments.put(sent);
  }

  /** @param {string} text */
  #write(text) {
    this.field.value = text;
    this.#changed();
  }

  #changed() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight + 2}px`;
    this.draft(this.field.value);
    this.#show();
  }

  #show() {
    const hadFocus = document.activeElement === this.#now;
    this.#now.hidden = !this.#isRunning || this.isEmpty;
    if (hadFocus && this.#now.hidden) this.field.focus();
  }
}
