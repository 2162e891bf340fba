/**
 * The colours: the system's, or those that a person chose, from the first drawing on. No module, which
 * would come behind it.
 */
{
  const KEY = "flowtrio theme";
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const apply = (/** @type {string} */ theme) => {
    root.dataset.theme = theme;
    const node = document.querySelector("#theme");
    node?.setAttribute("aria-label", `Colours: ${theme}`);
    node?.setAttribute("title", `Colours: ${theme}`);
  };
  const kept = () => {
    try {
      return localStorage.getItem(KEY) ?? "auto";
    } catch {
      return "auto";
    }
  };

  apply(THEMES.includes(kept()) ? kept() : "auto");
  addEventListener("DOMContentLoaded", () => {
    apply(root.dataset.theme ?? "auto");
    document.querySelector("#theme")?.addEventListener("click", () => {
      const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "") + 1) % THEMES.length] ?? "auto";
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // Then it lasts as long as the page.
      }
      apply(next);
    });
  });
  // Another tab's choice is this one's too.
  addEventListener("storage", ({ key }) => key === KEY && apply(kept()));
}
