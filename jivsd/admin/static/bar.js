/* The bar above every page: where one can go, whether what is seen is live, light or dark. */

import { token } from "./api.js";
import { h } from "./dom.js";
import { help } from "./keys.js";
import { duration } from "./words.js";

const THEMES = { auto: "As the system", light: "Light", dark: "Dark" };
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

const theme = () => localStorage.getItem("jivsd.theme") ?? "auto";

function wear() {
  document.documentElement.dataset.theme = theme();
}

wear();

/** The bar, with the page called `here` marked; `docs` marks that page. */
export function bar(pages, here, state, refresh) {
  const links = Object.entries(pages).map(([path, { name }]) => link(`/#/${path}`, name, path === here));
  return h(
    "header.bar",
    { id: "bar" },
    h("a.brand", { href: "/#/", "aria-label": "jivsd, to the overview" }, mark(), "jivsd"),
    h("nav", { "aria-label": "Pages" }, links, link("/docs", "API", here === "docs")),
    h("div.tools", null, state && sign(state, refresh), themeButton(), helpButton(), forget()),
  );
}

const link = (href, name, here) => h("a", { href, "aria-current": here ? "page" : null }, name);

const mark = () => h("span.mark", { "aria-hidden": "true" }, h("i"), h("i"), h("i"));

function sign({ state, error, wait }, refresh) {
  if (state === "away") {
    const text = `Away: ${error}. What you see is old; next try in ${duration(wait)}.`;
    return h("button.sign.away", { type: "button", onclick: refresh, title: text, role: "alert" }, h("i"), "daemon away");
  }
  const title = "What you see is loaded again every 2 seconds; press to do it now";
  return h("button.sign", { type: "button", onclick: refresh, title }, h("i"), "live");
}

function themeButton() {
  const label = `Colours: ${THEMES[theme()]}. Press for: ${THEMES[NEXT[theme()]]}`;
  return h("button.icon", { type: "button", "aria-label": label, title: label, onclick: turn }, SIGNS[theme()]);
}

function turn(event) {
  localStorage.setItem("jivsd.theme", NEXT[theme()]);
  wear();
  event.currentTarget.replaceWith(themeButton());
}

const helpButton = () =>
  h("button.icon", { type: "button", "aria-label": "Keys and help", title: "Keys and help (?)", onclick: help }, "?");

function forget() {
  if (!token.get()) return null;
  const leave = () => {
    token.set("");
    location.reload();
  };
  return h("button.quiet", { type: "button", onclick: leave }, "Forget token");
}
