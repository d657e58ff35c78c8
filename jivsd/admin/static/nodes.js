/* Nodes: who works on the database, and which shards each has. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { meter, panel, table, title } from "./parts.js";
import { duration, plural, time } from "./words.js";

const SHARDS = 64;

export function nodes() {
  const load = async (signal) => (await api.get("/nodes", {}, { signal })).items;
  const view = (all) => [
    title("Nodes"),
    nodeTable(all),
    panel("Shards", h("p.dim", null, "Every workflow id belongs to one of them; a node runs the workflows of its own."), map(all)),
  ];
  return { title: "Nodes", load, view };
}

const HEADS = ["Node", "State", { text: "Shards", class: "number" }, { text: "Share", hidden: true }, "Held by", "Lease", "Joined", "Version"];

/** All nodes, each with its state. */
export const nodeTable = (all) => panel(plural(all.length, "node"), table("Nodes", HEADS, all.map(row)));

function state(node) {
  if (node.lease_left !== null && node.lease_left < 0) return ["AWAY", "bad"];
  if (!node.since && node.by !== "alone") return ["GONE", "bad"];
  if (node.leaving) return ["LEAVING", "warn"];
  return node.full ? ["FULL", "warn"] : ["UP", "ok"];
}

function row(node) {
  const [word, look] = state(node);
  const lease = node.lease_left;
  return h(
    "tr",
    { "data-key": node.node },
    h("td.strong", null, node.node),
    h("td", null, h("span.status", { class: `tone-${look}` }, word)),
    h("td.number", null, node.shards.length),
    h("td.wide", null, meter(`Shards of ${node.node}`, node.shards.length, SHARDS, "tone-run")),
    h("td", null, node.by || "–"),
    h("td", null, lease === null ? "–" : lease < 0 ? `over for ${duration(lease * 1000)}` : `${duration(lease * 1000)} left`),
    h("td", null, time(node.since)),
    h("td", null, node.version || "–"),
  );
}

/** All shards as squares; those of one node have one shade. */
function map(all) {
  const owner = new Map(all.flatMap((node, index) => node.owned.map((one) => [one.shard, { ...one, node: node.node, shade: index % 6 }])));
  const square = (shard) => {
    const one = owner.get(shard);
    const text = one ? `shard ${shard}: ${one.node}, epoch ${one.epoch}` : `shard ${shard}: nobody has it`;
    return h("li", { title: text, class: one ? `shade-${one.shade}` : "none" }, h("span.hidden", null, `${text} `), h("span", { "aria-hidden": "true" }, String(shard)));
  };
  return h("ul.map", null, Array.from({ length: SHARDS }, (_, shard) => square(shard)));
}
