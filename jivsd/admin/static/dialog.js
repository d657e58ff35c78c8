/* Asks people: a modal dialog with a few fields, and short messages at the edge of the page. */

import { person } from "./api.js";
import { h } from "./dom.js";

let last = 0;

/** Say something in passing; an error stays longer. */
export function say(text, { bad = false } = {}) {
  const note = h("p.toast", { class: bad ? "tone-bad" : "tone-ok" }, text);
  document.getElementById("said").append(note);
  setTimeout(() => note.remove(), bad ? 9000 : 4000);
}

/** A field of `who`: remembered, and sent with everything that is done from here. */
export const who = () => ({ name: "by", label: "Your name, for the record", value: person.get(), autocomplete: "name" });

/** Check a text that has to be JSON; returns what is wrong, or "". */
export function jsonProblem(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `this is not JSON: ${error.message}`;
  }
}

/** Show a dialog and wait for it to close.

    `fields`: {name, label, value, kind: "text" | "json" | "password" | "choice", options, required, hint, placeholder}.
    `send(values, progress)` does what was asked; an error it throws is shown and the dialog stays, so that nothing
    typed is lost. Resolves to what it returned, or to undefined if the dialog was put aside. */
export function ask({ title, text, body, fields = [], confirm = "OK", danger = false, send, putAside = true }) {
  return new Promise((resolve) => {
    const id = `dialog-${++last}`;
    const problem = h("p.problem", { role: "alert" });
    const rows = fields.map((field) => row(field, `${id}-${field.name}`));
    const go = h("button.primary", { type: "submit", class: danger ? "danger" : "" }, confirm);
    let outcome;
    const form = h(
      "form",
      { onsubmit: submit },
      h("h2", { id }, title),
      text && h("p", null, text),
      body,
      rows,
      problem,
      h(
        "div.buttons",
        null,
        putAside && h("button", { type: "button", onclick: () => dialog.close() }, "Not now"),
        go,
      ),
    );
    const dialog = h(
      "dialog",
      {
        "aria-labelledby": id,
        onclose() {
          dialog.remove();
          resolve(outcome);
        },
        oncancel: (event) => putAside || event.preventDefault(),
      },
      form,
    );

    async function submit(event) {
      event.preventDefault();
      const values = Object.fromEntries(new FormData(form));
      const wrong = fields.map((field) => field.kind === "json" && jsonProblem(values[field.name])).find(Boolean);
      problem.textContent = wrong ?? "";
      if (wrong) return;
      if ("by" in values) person.set(values.by);
      go.disabled = true;
      try {
        outcome = (await send?.(values)) ?? values;
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
      } finally {
        go.disabled = false;
      }
    }

    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("[data-first]") ?? form.querySelector("input, textarea, select") ?? go).focus();
  });
}

function row(field, id) {
  const shared = { id, name: field.name, required: field.required, autocomplete: field.autocomplete ?? "off" };
  const hint = field.hint && h("small.dim", { id: `${id}-hint` }, field.hint);
  const described = field.hint ? { "aria-describedby": `${id}-hint` } : {};
  return h(
    "div.field",
    null,
    h("label", { for: id }, field.label),
    control(field, { ...shared, ...described, placeholder: field.placeholder }),
    hint,
  );
}

function control(field, shared) {
  if (field.kind === "json") {
    return h("textarea.code", { ...shared, rows: field.rows ?? 4, spellcheck: "false", value: field.value ?? "null" });
  }
  if (field.kind === "choice") {
    const options = field.options.map((one) => h("option", { value: one, selected: one === field.value }, one));
    return h("select", shared, options);
  }
  const type = field.kind === "password" ? "password" : "text";
  return h("input", { ...shared, type, value: field.value ?? "", list: field.list });
}
