/**
 * What a person is asked: a question with its form, and the arguments of a call that waits.
 */

import { button, el, pretty } from "./dom.js";

/** @typedef {import("./conversation.js").Controls} Controls */

/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Field */

/**
 * One field of a form.
 *
 * @typedef {object} Asked
 * @property {Field} field
 * @property {() => unknown} value What it says; undefined for nothing.
 */

const MOST_FIELDS = 12;

/** A question of the agent to its user. */
export class Question {
  /** @param {any} data @param {Controls} controls */
  constructor({ request_id, prompt, schema }, controls) {
    this.isJson = schema !== null && schema !== undefined;
    const { fields, value } = formOf(schema ?? null);
    this.form = el("form", fields.length === 1 && schema === null ? "actions" : "answers", ...fields);
    const send = el("button", "primary", "Answer");
    const settle = (/** @type {() => Promise<string | null>} */ act) => {
      settleAsking(this.element, this.form, act, controls);
    };
    const decline = button("Decline", "", () => settle(() => controls.dismiss(request_id)));
    this.form.append(el("div", "actions", send, decline));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      settle(() => controls.answer(request_id, value()));
    });
    const said = el("p", "prompt", prompt);
    said.dir = "auto";
    this.element = el("section", "ask", said, this.form);
    this.element.setAttribute("aria-label", "Question");
    this.element.dataset.asks = "Your answer is needed";
  }

  /** @param {any} data */
  resolve({ outcome, text }) {
    const isAnswered = outcome === "answered";
    const value = this.isJson ? parsed(text) : text;
    const said = isAnswered ? pretty(value ?? text) : (RESOLVED[outcome] ?? "Withdrawn");
    const node = el(typeof value === "object" && isAnswered ? "pre" : "p", isAnswered ? "reply" : "note", said);
    node.dir = "auto";
    this.form.replaceWith(node);
    delete this.element.dataset.asks;
  }
}

/** @type {Record<string, string>} */
const RESOLVED = { timeout: "Not answered in time", declined: "Declined" };

/**
 * The form of an answer. A schema may be from somebody else, such as a server of tools, and odd: then
 * it is answered in JSON, and who checks the answer says what is wrong.
 *
 * @param {any} schema
 */
function formOf(schema) {
  try {
    return answerOf(schema);
  } catch {
    return writtenAnswer(schema);
  }
}

/**
 * The fields of an answer, and what they come to: a line of text, a form for an object whose values
 * are simple, or else JSON as it is written.
 *
 * @param {any} schema
 * @returns {{fields: HTMLElement[], value: () => unknown}}
 */
function answerOf(schema) {
  if (schema === null) {
    const field = el("input");
    field.required = true;
    field.setAttribute("aria-label", "Your answer");
    return { fields: [field], value: () => field.value };
  }
  const names = Object.keys(schema.properties ?? {});
  const isForm = schema.type === "object" && names.length > 0 && names.length <= MOST_FIELDS;
  const required = new Set(schema.required ?? []);
  const kinds = names.map((name) => resolved(schema.properties[name], schema.$defs));
  const asked = isForm ? names.map((name, place) => fieldOf(kinds[place], name, required.has(name))) : [null];
  if (!asked.every((one) => one !== null)) return rawAnswer(schema);
  const value = () => {
    const said = asked.map((one, place) => [names[place], one.value()]);
    return Object.fromEntries(said.filter(([, each]) => each !== undefined));
  };
  return { fields: asked.map((one, place) => labelled(one.field, names[place] ?? "", schema)), value };
}

/** @param {any} schema @returns {{fields: HTMLElement[], value: () => unknown}} */
function rawAnswer(schema) {
  const single = fieldOf(resolved(schema, schema.$defs), "Your answer", true);
  if (single !== null) {
    single.field.setAttribute("aria-label", "Your answer");
    return { fields: [single.field], value: single.value };
  }
  return writtenAnswer(schema);
}

/** @param {any} schema @returns {{fields: HTMLElement[], value: () => unknown}} */
function writtenAnswer(schema) {
  const field = el("textarea");
  field.required = true;
  field.rows = 5;
  field.spellcheck = false;
  field.setAttribute("aria-label", "Your answer, as JSON");
  field.addEventListener("input", () => field.setCustomValidity(parsed(field.value) === undefined ? "This is not JSON." : ""));
  const expected = el("details", "", el("summary", "", "What is expected"), el("pre", "", pretty(schema)));
  return { fields: [field, expected], value: () => parsed(field.value) };
}

/**
 * A schema with what it refers to and may be beside null; it says so as `isOptional`.
 *
 * @param {any} schema
 * @param {any} definitions
 * @returns {any}
 */
function resolved(schema, definitions) {
  const found = definitions?.[String(schema?.$ref ?? "").replace("#/$defs/", "")];
  if (found !== undefined) return { ...found, ...schema, $ref: undefined };
  const kinds = schema?.anyOf?.filter((/** @type {any} */ { type }) => type !== "null");
  if (kinds?.length !== 1 || schema.anyOf.length !== 2) return schema;
  return { ...resolved(kinds[0], definitions), ...schema, isOptional: true };
}

/**
 * The field for a value of a simple schema; null where it is none.
 *
 * @param {any} schema
 * @param {string} name
 * @param {boolean} isRequired
 * @returns {Asked | null}
 */
function fieldOf(schema, name, isRequired) {
  if (schema?.isOptional) {
    // Nothing said is null; where the key may be missing, nothing at all.
    const kind = schema.type === "boolean" ? { ...schema, enum: [true, false] } : schema;
    const inner = fieldOf({ ...kind, isOptional: false }, name, false);
    if (inner === null || !isRequired) return inner;
    return { field: inner.field, value: () => inner.value() ?? null };
  }
  if (Array.isArray(schema?.enum)) {
    const field = el("select");
    /** @type {unknown[]} */
    const values = schema.enum;
    if (!isRequired) field.append(el("option"));
    field.append(...values.map((value) => el("option", "", pretty(value))));
    const first = isRequired ? 0 : 1;
    field.selectedIndex = Math.max(0, values.indexOf(schema.default) + first);
    return { field, value: () => values[field.selectedIndex - first] };
  }
  if (schema?.type === "boolean") {
    const field = el("input");
    field.type = "checkbox";
    field.checked = schema.default === true;
    return { field, value: () => field.checked };
  }
  const field = el("input");
  field.name = name;
  field.required = isRequired;
  if (schema?.type === "string") {
    field.value = typeof schema.default === "string" ? schema.default : "";
    field.required = isRequired && (schema.minLength ?? 0) > 0;
    if (typeof schema.maxLength === "number") field.maxLength = schema.maxLength;
    return { field, value: () => (field.value === "" && !isRequired ? undefined : field.value) };
  }
  if (schema?.type === "number" || schema?.type === "integer") {
    field.type = "number";
    field.step = schema.type === "integer" ? "1" : "any";
    if (typeof schema.minimum === "number") field.min = String(schema.minimum);
    if (typeof schema.maximum === "number") field.max = String(schema.maximum);
    if (typeof schema.default === "number") field.value = String(schema.default);
    return { field, value: () => (field.value === "" ? undefined : Number(field.value)) };
  }
  return null;
}

/** @param {Field} field @param {string} name @param {any} schema */
function labelled(field, name, schema) {
  const { title, description } = schema.properties[name];
  const label = el("label", field.type === "checkbox" ? "check" : "", el("span", "", title ?? name), field);
  if (description) label.append(el("small", "", description));
  return label;
}

/** What a text says as JSON; undefined where it is none. @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The arguments of a call that waits for approval, for who wants to change them. */
export class ArgumentsEditor {
  #given;

  /** @param {string} name @param {object} given */
  constructor(name, given) {
    this.#given = pretty(given);
    this.element = el("textarea", "edited");
    this.element.hidden = true;
    this.element.value = this.#given;
    this.element.rows = Math.min(12, this.#given.split("\n").length);
    this.element.spellcheck = false;
    this.element.setAttribute("aria-label", `Arguments of ${name}`);
    this.element.addEventListener("input", () => this.element.setCustomValidity(""));
    this.toggle = button("Edit", "", () => {
      this.element.hidden = false;
      this.toggle.hidden = true;
      this.element.focus();
    });
    this.toggle.setAttribute("aria-label", `Edit the arguments of ${name}`);
  }

  /** What they are now; undefined where nobody changed them. */
  get value() {
    return this.element.value === this.#given ? undefined : parsed(this.element.value);
  }

  /** Whether they are a JSON object; tells the person where they are not. */
  isValid() {
    const value = parsed(this.element.value);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    this.element.setCustomValidity(isObject ? "" : "This is not a JSON object.");
    return this.element.reportValidity();
  }
}

/**
 * Send what a person decided; where it was not taken, they are told why, and may decide again.
 *
 * @param {HTMLElement} element What asks.
 * @param {HTMLElement} fields What they can do about it.
 * @param {() => Promise<string | null>} act Gives why it was not taken.
 * @param {Controls} controls
 */
export async function settleAsking(element, fields, act, controls) {
  const title = element.dataset.asks;
  const enable = (/** @type {boolean} */ isEnabled) => {
    for (const node of fields.querySelectorAll("button, input, select, textarea")) {
      /** @type {HTMLButtonElement} */ (node).disabled = !isEnabled;
    }
    controls.settled();
  };
  delete element.dataset.asks;
  fields.querySelector(".wrong")?.remove();
  enable(false);
  const refused = await act();
  if (refused === null || !fields.isConnected || fields.childElementCount === 0) return;
  if (refused !== "") {
    const wrong = el("p", "wrong", refused);
    wrong.setAttribute("role", "alert");
    fields.append(wrong);
  }
  element.dataset.asks = title;
  enable(true);
}
