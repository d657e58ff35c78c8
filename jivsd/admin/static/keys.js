/* What keys do: go to pages, move in lists, search, help. */

import { h } from "./dom.js";

let pages = {};
let leading = 0;

/** Take up the keys. `found`: the pages, each with the key that follows "g". */
export function listen(found, { refresh }) {
  pages = found;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]") || typing(event.target)) {
      if (event.key === "Escape" && typing(event.target)) event.target.blur();
      return;
    }
    if (pressed(event.key, refresh)) event.preventDefault();
  });
}

const typing = (element) => element.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");

function pressed(key, refresh) {
  const led = Date.now() - leading < 1500;
  leading = 0;
  if (led) {
    const [path] = Object.entries(pages).find(([, page]) => page.key === key) ?? [];
    if (path !== undefined) location.href = `/#/${path}`;
    return path !== undefined;
  }
  const does = {
    g: () => (leading = Date.now()),
    "/": search,
    "?": help,
    ".": refresh,
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    j: () => move(1),
    k: () => move(-1),
    x: choose,
  }[key];
  return does ? does() !== false : false;
}

function search() {
  const field = document.querySelector("[data-search]");
  if (field) field.focus();
  else location.href = "/#/runs?search";
}

/** Go up or down among the rows of a list; false if there is none. */
function move(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length || document.activeElement?.closest("svg")) return false;
  const here = rows.indexOf(document.activeElement?.closest("tr, li")?.querySelector("[data-row]"));
  const next = rows[here < 0 ? 0 : Math.min(Math.max(here + by, 0), rows.length - 1)];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
  return true;
}

const choose = () => document.activeElement?.closest("tr")?.querySelector("input[type=checkbox]")?.click() ?? false;

/** Show what the keys do. */
export function help() {
  const goes = Object.values(pages).map((page) => [`g ${page.key}`, page.name]);
  const others = [
    ["/", "search runs"], ["↓ ↑", "or j k: next, previous in a list"], ["Enter", "open"], ["x", "select a run"],
    ["← →", "next, previous in a picture"], [".", "load again"], ["?", "this"], ["Esc", "close"],
  ];
  const line = ([keys, does]) => [h("dt", null, keys.split(" ").map((key) => h("kbd", null, key))), h("dd", null, does)];
  const dialog = h(
    "dialog.help",
    { "aria-labelledby": "help-title", onclose: () => dialog.remove() },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "help-title" }, "Keys"),
      h("dl.keys", null, [...others, ...goes].map(line)),
      h("div.buttons", null, h("button.primary", { type: "submit" }, "Close")),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
