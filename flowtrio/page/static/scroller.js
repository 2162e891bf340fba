/**
 * Where a conversation that grows is looked at: its end, until the person scrolls away from it.
 *
 * Whether it is followed is remembered, never measured when something was added: what is added may
 * be taller than any distance that still counts as "at the end".
 */

/** Pixels from the end that still count as the end. */
const NEAR = 40;
/** Milliseconds for which a hand on the wheel, a key or the screen explains that something moved. */
const HAND = 500;
/** Keys that scroll away from the end. */
const UP = ["ArrowUp", "PageUp", "Home"];
/** Pixels around what has to be seen. */
const ROOM = 12;

export class Scroller {
  /** @type {HTMLElement | null} What has to be seen, where the whole end does not fit. */ target = null;
  #isFollowing = true;
  /** @type {HTMLElement | null} The target that the person scrolled away from. */ #passed = null;
  /** Where it was put last. */ #put = 0;
  /** How far it could be scrolled then. */ #most = 0;
  /** When a person did what scrolls. */ #touched = -Infinity;

  /**
   * @param {HTMLElement} element What scrolls.
   * @param {HTMLButtonElement} jump Leads back to the end.
   */
  constructor(element, jump) {
    this.element = element;
    this.jump = jump;
    element.addEventListener("scroll", () => this.keep(), { passive: true });
    for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"]) {
      element.addEventListener(kind, (event) => this.#touch(event), { passive: true });
    }
    jump.addEventListener("click", () => this.follow());
    // A keyboard that comes up, a window that changes, a message of several lines.
    new ResizeObserver(() => this.keep()).observe(element);
    this.keep();
  }

  /** Go to the end, and stay there. */
  follow() {
    this.#isFollowing = true;
    this.#passed = null;
    this.keep();
  }

  /** Something has changed: stay where the end is, if it is followed. */
  keep() {
    const { element, jump } = this;
    // Behind another tab it has no size, and no place.
    if (element.clientHeight === 0) return;
    this.#look();
    element.classList.toggle("followed", this.#isFollowing);
    if (this.#isFollowing) {
      const wanted = this.#wanted();
      if (Math.abs(element.scrollTop - wanted) >= 1) element.scrollTop = wanted;
      this.#put = element.scrollTop;
    }
    const hadFocus = document.activeElement === jump;
    jump.hidden = this.#isFollowing;
    if (hadFocus && jump.hidden) element.focus({ preventScroll: true });
    const label = this.target?.dataset.asks ?? "To the end";
    if (jump.textContent !== label) jump.textContent = label;
  }

  /** The end; less of it where the target would not be seen. */
  #wanted() {
    const { element, target } = this;
    const end = element.scrollHeight - element.clientHeight;
    if (target === null || target === this.#passed) return end;
    const from = element.getBoundingClientRect().top - element.scrollTop;
    const top = target.getBoundingClientRect().top - from;
    const wanted = Math.min(end, top - ROOM);
    // The buttons come before the words that lead to them; but a form is read from its top.
    const acts = target.querySelector(".actions:not(.answers > *)")?.getBoundingClientRect().bottom;
    return acts === undefined ? wanted : Math.min(end, Math.max(wanted, acts - from + ROOM - element.clientHeight));
  }

  /** Note what scrolls away from the end; not what presses a button there. @param {Event} event */
  #touch(event) {
    const isOther = event instanceof KeyboardEvent && !UP.includes(event.key);
    if (isOther || (event.type === "pointerdown" && event.target !== this.element)) return;
    this.#touched = performance.now();
  }

  /** See whether the person has scrolled, also where their scroll event is still to come. */
  #look() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const rest = scrollHeight - scrollTop - clientHeight;
    // What became shorter is moved by the browser: nobody scrolled away from what has to be seen.
    // It may have grown again since, so that this is not the end any more.
    const isByHand = performance.now() - this.#touched < HAND;
    const isOther = scrollHeight - clientHeight !== this.#most && !isByHand;
    const isMoved = this.#isFollowing && scrollTop < this.#put && (rest < 1 || isOther);
    if (!isMoved && Math.abs(scrollTop - this.#put) >= 1) {
      this.#isFollowing = rest < NEAR;
      this.#passed = this.target;
    }
    this.#put = scrollTop;
    this.#most = scrollHeight - clientHeight;
  }
}
