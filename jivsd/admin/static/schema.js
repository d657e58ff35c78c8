/* JSON Schema for people: what a value looks like, and a first one to begin with. */

import { h } from "./dom.js";
import { pretty } from "./words.js";

const DEEPEST = 6;

/** A schema with its reference followed; `root` has the definitions. */
export function resolved(schema, root) {
  let found = schema;
  for (let hop = 0; found?.$ref && hop < 10; hop++) {
    found = found.$ref.slice(2).split("/").reduce((at, part) => at?.[part], root);
  }
  return found ?? {};
}

/** The type of a value in a few words: "text", "list of number", "one of A, B". */
export function kind(schema, root = schema, depth = 0) {
  const found = resolved(schema, root);
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  if ("const" in found) return JSON.stringify(found.const);
  const several = found.anyOf ?? found.oneOf;
  if (several) return several.map((one) => kind(one, root, depth + 1)).join(" | ");
  if (found.type === "array") return `list of ${depth > DEEPEST || !found.items ? "any" : kind(found.items, root, depth + 1)}`;
  if (found.type === "object") return found.title ?? "object";
  return found.format ? `${found.type} (${found.format})` : [found.type ?? "any"].flat().join(" | ");
}

const LIMITS = { minimum: "≥", maximum: "≤", exclusiveMinimum: ">", exclusiveMaximum: "<", minLength: "length ≥", maxLength: "length ≤", pattern: "like", maxItems: "items ≤", minItems: "items ≥" };

const limits = (found) => Object.entries(LIMITS).filter(([name]) => name in found).map(([name, sign]) => `${sign} ${found[name]}`).join(", ");

/** A schema as a tree of fields. */
export function shape(schema, root = schema, depth = 0) {
  const found = inner(schema, root);
  const properties = Object.entries(found.properties ?? {});
  if (!properties.length) return h("p", null, h("code", null, kind(schema, root)), h("span.dim", null, ` ${limits(resolved(schema, root))}`));
  const required = new Set(found.required ?? []);
  const field = ([name, one]) => {
    const seen = resolved(one, root);
    const below = inner(one, root);
    return h(
      "li",
      null,
      h("p", null, h("strong", null, name), h("code", null, kind(one, root)), required.has(name) ? h("span.needed", null, "needed") : "default" in one ? h("span.dim", null, `else ${JSON.stringify(one.default)}`) : null, h("span.dim", null, limits(seen))),
      seen.description && h("p.dim", null, seen.description),
      below.properties && depth < DEEPEST && shape(one, root, depth + 1),
    );
  };
  return h("ul.schema", null, properties.map(field));
}

/** The object within a list or among alternatives, if there is one. */
function inner(schema, root) {
  const found = resolved(schema, root);
  if (found.type === "array" && found.items) return inner(found.items, root);
  const several = (found.anyOf ?? found.oneOf)?.map((one) => resolved(one, root)).find((one) => one.properties);
  return several ?? found;
}

/** A value that fits as far as one can tell: what is needed, with defaults where there are any. */
export function sample(schema, root = schema) {
  return pretty(first(schema, root, 0));
}

function first(schema, root, depth) {
  const found = resolved(schema, root);
  if ("default" in schema) return schema.default;
  if (found.examples?.length) return found.examples[0];
  if (found.enum) return found.enum[0];
  if ("const" in found) return found.const;
  const several = found.anyOf ?? found.oneOf;
  if (several) return several.some((one) => one.type === "null") ? null : first(several[0], root, depth + 1);
  switch (found.type) {
    case "object": {
      const needed = depth > DEEPEST ? [] : found.required ?? [];
      return Object.fromEntries(needed.map((name) => [name, first(found.properties[name], root, depth + 1)]));
    }
    case "array": return [];
    case "string": return "";
    case "integer":
    case "number": return Math.max(found.minimum ?? 0, found.exclusiveMinimum === undefined ? 0 : found.exclusiveMinimum + 1);
    case "boolean": return false;
    default: return null;
  }
}
