/* Puts the page together: which page the address names, the bar above it, and what keys do. */

import { Refusal } from "./api.js";
import { bar } from "./bar.js";
import { h, patch } from "./dom.js";
import { incidents } from "./incidents.js";
import { listen } from "./keys.js";
import { follow } from "./live.js";
import { locks } from "./locks.js";
import { migrations } from "./migrations.js";
import { nodes } from "./nodes.js";
import { overview } from "./overview.js";
import { PAGES } from "./places.js";
import { plugins } from "./plugins.js";
import { run } from "./run.js";
import { runs } from "./runs.js";
import { askForToken } from "./token.js";

/** What is at a place, and what with an id behind it: `page({id, query, redraw, refresh})` -> {title, load, view}. */
const SHOWS = {
  "": [overview, overview],
  runs: [runs, run],
  incidents: [incidents, incidents],
  migrations: [migrations, migrations],
  locks: [locks, locks],
  nodes: [nodes, nodes],
  plugins: [plugins, plugins],
};

const main = document.getElementById("main");
let feed = null;
let state = { state: "live" };

/** What the address says: `#/runs/ID?a=b` is {name: "runs", id: "ID", query}. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, id] = path.split("/").map(decodeURIComponent);
  return { name: name in PAGES ? name : "", id: id || null, query: new URLSearchParams(query) };
}

function drawBar() {
  const there = document.getElementById("bar");
  const before = there.querySelector("[aria-current]");
  patch(there, bar(PAGES, place().name, state, () => feed?.refresh()));
  const here = there.querySelector("[aria-current]");
  if (here !== before) here.scrollIntoView({ block: "nearest", inline: "center" });
}

function show(tree, fresh) {
  const next = h("main", { id: "main", tabindex: "-1" }, tree);
  if (fresh) main.replaceChildren(...next.childNodes);
  else patch(main, next);
  main.inert = false;
}

function open() {
  feed?.stop();
  main.inert = true; // what is still seen belongs to another address: an action would not do what that one says
  const { name, id, query } = place();
  let data;
  let fresh = true;
  const redraw = () => data !== undefined && draw(data);
  const page = SHOWS[name][id ? 1 : 0]({ id, query, redraw, refresh });
  document.title = `${page.title} · jivsd`;

  function refresh() {
    return feed.refresh();
  }

  function draw(loaded) {
    data = loaded;
    show(page.view(loaded), fresh);
    fresh = false;
  }

  feed = follow(page.load, {
    draw,
    fail(error) {
      if (!(error instanceof Refusal)) throw error;
      show(h("section.panel", null, h("h1", null, page.title), h("p.problem", { role: "alert" }, error.message)), fresh);
      fresh = true;
    },
    tell(news) {
      state = news;
      drawBar();
    },
  });
  drawBar();
}

window.addEventListener("hashchange", () => {
  window.scrollTo(0, 0);
  open();
});
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault(); // what follows "#" is a page here
  main.focus();
};
listen(PAGES, { refresh: () => feed.refresh() });
askForToken();
open();
