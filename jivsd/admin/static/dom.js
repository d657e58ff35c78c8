/* Makes elements and patches a page into the shape of a newer one.

   Text is set as text and never parsed, so nothing that a workflow says can become markup. */

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = Symbol("handlers");

/** An HTML element: `h("a.link", {href: "#/", onclick: f}, "text", other)`. Falsy children are left out. */
export function h(kind, properties, ...children) {
  const [tag, ...classes] = kind.split(".");
  return finish(document.createElement(tag), classes, properties, children);
}

/** The same for SVG. */
export function s(kind, properties, ...children) {
  const [tag, ...classes] = kind.split(".");
  return finish(document.createElementNS(SVG, tag), classes, properties, children);
}

function finish(element, classes, properties, children) {
  element[HANDLERS] = {};
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(properties ?? {})) set(element, name, value);
  append(element, children);
  return element;
}

function set(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) {
    element[HANDLERS][name] = value;
    element[name] = value;
  } else if (name === "style") {
    for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
  } else if (name === "class") {
    element.setAttribute("class", `${element.getAttribute("class") ?? ""} ${value}`.trim());
  } else if (name === "checked" || name === "value") {
    element[name] = value;
  } else {
    element.setAttribute(name, value === true ? "" : value);
  }
}

function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child instanceof Node) element.append(child);
    else if (child !== null && child !== undefined && child !== false) element.append(String(child));
  }
}

/** Change `old` into `next`, keeping elements, and with them focus, selection and what was typed. */
export function patch(old, next) {
  if (old.nodeName !== next.nodeName || keyOf(old) !== keyOf(next)) {
    old.replaceWith(next);
    return next;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return old;
  }
  patchElement(old, next);
  if (!old.hasAttribute("data-own")) patchChildren(old, next);
  return old;
}

const keyOf = (node) => node.dataset?.key ?? "";

/** The attributes of an element, also of a form whose field of that name would stand in their place. */
const attributesOf = Object.getOwnPropertyDescriptor(Element.prototype, "attributes").get;

function patchElement(old, next) {
  const kept = old.nodeName === "DETAILS" ? "open" : "";
  for (const { name } of [...attributesOf.call(old)]) {
    if (!next.hasAttribute(name) && name !== kept) old.removeAttribute(name);
  }
  for (const { name, value } of attributesOf.call(next)) {
    if (old.getAttribute(name) !== value && name !== kept && name !== "style") old.setAttribute(name, value);
  }
  if (old.style.cssText !== next.style.cssText) old.style.cssText = next.style.cssText;
  const [had, has] = [old[HANDLERS] ?? {}, next[HANDLERS] ?? {}];
  for (const name of Object.keys(had)) if (!(name in has)) old[name] = null;
  for (const [name, handler] of Object.entries(has)) old[name] = handler;
  old[HANDLERS] = has;
  if (old.type === "checkbox") old.checked = next.checked;
}

function patchChildren(old, next) {
  const keyed = new Map();
  for (const child of old.childNodes) if (keyOf(child)) keyed.set(keyOf(child), child);
  let place = old.firstChild;
  for (const child of [...next.childNodes]) {
    const known = keyOf(child) ? keyed.get(keyOf(child)) : place && !keyOf(place) ? place : null;
    if (!known) {
      old.insertBefore(child, place);
      continue;
    }
    if (known !== place) old.insertBefore(known, place);
    place = patch(known, child).nextSibling;
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}
