/* Draws a run's outline: a row for each command of each branch, time from left to right. */

import { h, s } from "./dom.js";
import { scale } from "./scale.js";
import { duration, pretty, runLink, short, timeText } from "./words.js";

const ROW = 28;
const TOP = 30;
const BAR = 16;
const FEW = 60;
const LABELS = { wide: 230, narrow: 118 };

/** The picture, and below it what is said about the chosen bar.

    `state`: {chosen, all} of the page, kept between drawings; `change` draws again. */
export function picture(outline, width, state, change) {
  const rows = state.all ? outline.rows : outline.rows.slice(0, FEW);
  const left = width < 640 ? LABELS.narrow : LABELS.wide;
  const room = Math.max(width - left, 120);
  const plot = scale({ ...outline, rows }, room - 10);
  const bars = rows.flatMap((row) => row.bars);
  const chosen = bars.find((bar) => bar.id === state.chosen);
  const choose = (id) => () => {
    if (state.chosen === id) return;
    state.chosen = id;
    change();
  };
  return h(
    "div.picture",
    null,
    h("div.plot", { style: { "--left": `${left}px` } }, names(rows), drawing({ outline, rows, plot, room, chosen, choose })),
    outline.rows.length > rows.length && moreButton(outline.rows.length, state, change),
    about(chosen, outline),
  );
}

const moreButton = (number, state, change) =>
  h("button", { type: "button", onclick: () => (state.all = true, change()) }, `Show all ${number} rows`);

const names = (rows) =>
  h(
    "div.names",
    { "aria-hidden": "true" },
    rows.map((row) =>
      h("div", { "data-key": row.key, title: [row.branch, row.name].filter(Boolean).join("/") }, row.branch && h("span.branch", { class: row.name ? "dim" : null }, h("bdi", null, row.name ? `${row.branch}/` : row.branch)), h("span", { class: row.undo ? "tone-undo" : null }, row.name)),
    ),
  );

function drawing({ outline, rows, plot, room, chosen, choose }) {
  const height = TOP + rows.length * ROW + 6;
  const tabbed = chosen?.id ?? rows[0]?.bars[0]?.id;
  return s(
    "svg",
    { width: room, height, viewBox: `0 0 ${room} ${height}`, role: "group", "aria-label": "The run's steps against time; arrow keys go from one to the next", onkeydown: step },
    s("g.stripes", null, rows.map((_, index) => index % 2 === 0 && s("rect", { x: 0, y: TOP + index * ROW, width: room, height: ROW }))),
    outline.pauses.map((pause) => shade(pause, plot, height)),
    axis(plot, height),
    outline.moments.map((moment) => line(moment, plot, height)),
    rows.flatMap((row, index) => row.bars.map((bar) => shape(bar, row, plot, TOP + index * ROW, { on: bar === chosen, tabbed: bar.id === tabbed, choose }))),
    plot.breaks.map((gap) => zigzag(gap, room, height)),
    outline.open && s("line.now", { x1: plot.x(outline.ends), x2: plot.x(outline.ends), y1: TOP - 6, y2: height }),
  );
}

const axis = (plot, height) =>
  s(
    "g.axis",
    null,
    plot.ticks.map(({ x, after }) => {
      const free = plot.breaks.every((gap) => x + 48 < gap.x - 72 || x > gap.x + 46);
      return [s("line", { x1: x, x2: x, y1: TOP - 6, y2: height }), free && s("text", { x: x + 3, y: 17 }, after ? duration(after) : "0")];
    }),
  );

const shade = ({ from, to }, plot, height) =>
  s("rect.paused", { x: plot.x(from), y: TOP - 6, width: Math.max(plot.x(to) - plot.x(from), 2), height: height - TOP + 6 }, s("title", null, "paused"));

const line = ({ at, label, tone }, plot, height) =>
  s("g.moment", { class: `tone-${tone}` }, s("line", { x1: plot.x(at), x2: plot.x(at), y1: TOP - 10, y2: height }), s("title", null, `${label}, ${timeText(new Date(at))}`));

/** Where the axis is broken: a white gap with a wavy edge, and how long it really is. */
function zigzag({ x, length }, room, height) {
  const points = [];
  for (let y = TOP - 6, side = 1; y < height + 6; y += 6, side = -side) points.push([side * 3, y]);
  const edge = (shift) => points.map(([dx, y]) => `${x + dx + shift},${y}`).join(" ");
  const inside = `${edge(-4)} ${points.map(([dx, y]) => `${x + dx + 4},${y}`).reverse().join(" ")}`;
  return s("g.break", null, s("polygon", { points: inside }), s("polyline", { points: edge(-4) }), s("polyline", { points: edge(4) }), s("text", { x, y: 17, class: x > room - 40 ? "last" : null }, duration(length)), s("title", null, `${duration(length)} are drawn short`));
}

function shape(bar, row, plot, y, { on, tabbed, choose }) {
  const [left, right] = [plot.x(bar.from), plot.x(bar.to)];
  const width = Math.max(right - left, 3);
  const attributes = {
    "data-key": bar.id, "data-bar": true, tabindex: tabbed ? "0" : "-1", role: "img", "aria-label": words(bar, row),
    class: `tone-${bar.tone} ${bar.look ?? ""} ${bar.open ? "open" : ""} ${on ? "on" : ""}`,
    onfocus: choose(bar.id), onpointerenter: choose(bar.id),
  };
  const middle = y + ROW / 2;
  if (bar.look === "mark" || bar.look === "message") {
    return s("g.bar", attributes, s("path", { d: `M${left} ${middle - 7}l7 7l-7 7l-7 -7z` }));
  }
  if (bar.look === "pause") {
    return s("g.bar", attributes, s("rect.hit", { x: left, y: y + 4, width, height: ROW - 8 }), s("line", { x1: left, x2: left + width, y1: middle, y2: middle }));
  }
  const slim = bar.look === "wait" ? 8 : BAR;
  const text = bar.look === "wait" ? "" : label(bar, width);
  return s(
    "g.bar",
    attributes,
    s("rect", { x: left, y: middle - slim / 2, width, height: slim, rx: bar.look === "child" ? 8 : 3 }),
    text && s("text", { x: left + 6, y: middle + 4 }, text),
  );
}

/** The longest text that fits into a bar. */
function label(bar, width) {
  const length = duration(bar.to - bar.from);
  const texts = bar.attempt > 1 ? [`${length}, attempt ${bar.attempt}`, length] : [length];
  return texts.find((text) => text.length * 6.2 + 12 < width);
}

const words = (bar, row) => `${bar.path || row.name}: ${bar.state}${bar.look === "mark" ? "" : `, about ${duration(bar.to - bar.from)}`}`;

/** What is known of a bar; without one, how to read the picture. */
function about(bar, outline) {
  if (!bar) {
    const text = outline.rows.length
      ? "Point at a bar, or go there with Tab and the arrow keys. Beginnings are taken from what came before in the branch: the journal records outcomes."
      : "Nothing has been recorded beyond the start yet.";
    return h("div.about", null, h("p.dim", null, text));
  }
  const took = bar.from === bar.to ? "" : `, ${bar.open ? "for" : "took about"} ${duration(bar.to - bar.from)}`;
  const entries = [
    [bar.open ? "Since about" : bar.from === bar.to ? "At" : "Ended", timeText(new Date(bar.open ? bar.from : bar.to))],
    ["Attempt", bar.attempt > 1 ? String(bar.attempt) : null],
    ["Until", bar.until && timeText(new Date(bar.until))],
    ["Child run", bar.child && h("a", { href: runLink(bar.child) }, short(bar.child))],
    ["Error", bar.error && `${bar.error.type ? `${bar.error.type}: ` : ""}${bar.error.message}`],
    ["Result", bar.value !== undefined && bar.value !== null && h("code", null, brief(bar.value))],
  ];
  return h(
    "div.about",
    { class: `tone-${bar.tone}` },
    h("p", null, h("strong.path", null, bar.path), h("span", null, ` ${bar.state}${took}`)),
    h("dl.facts", null, entries.filter(([, value]) => value).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))),
  );
}

const brief = (value) => {
  const text = pretty(value).replace(/\s+/g, " ");
  return text.length > 160 ? `${text.slice(0, 160)}…` : text;
};

/** Arrow keys go from bar to bar. */
function step(event) {
  const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  const all = [...event.currentTarget.querySelectorAll("[data-bar]")];
  const here = all.indexOf(document.activeElement);
  all[Math.min(Math.max(here + by, 0), all.length - 1)]?.focus();
}
