/** What an address of the studio's names: a list, or a run and a moment in it. */

/**
 * @typedef {object} Where
 * @property {"runs" | "inbox" | "run" | "file"} view
 * @property {string} tenant
 * @property {string} run
 * @property {number | null} at The `seq` of an event.
 * @property {URLSearchParams} query
 */

/** @param {string} [hash] @returns {Where} */
export function where(hash = location.hash) {
  const [path = "", text = ""] = hash.replace(/^#\/?/, "").split("?");
  const query = new URLSearchParams(text);
  const [view, tenant = "", run = ""] = path.split("/").map(decoded);
  const at = /^\d{1,15}$/.test(query.get("at") ?? "") ? Number(query.get("at")) : null;
  if (view === "run" && tenant !== "" && run !== "") return { view, tenant, run, at, query };
  if (view === "inbox" || view === "file") return { view, tenant: "", run: "", at, query };
  return { view: "runs", tenant: "", run: "", at: null, query };
}

/** @param {string} text */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

/** The address of a view. @param {...string} pieces */
export function addressOf(...pieces) {
  return `#/${pieces.map(encodeURIComponent).join("/")}`;
}
