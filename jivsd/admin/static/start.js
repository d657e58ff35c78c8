/* The form that starts a run. */

import * as api from "./api.js";
import { jsonProblem, say } from "./dialog.js";
import { h } from "./dom.js";
import { runLink } from "./words.js";

/** A form for a workflow's input and the options that are used most; when it is accepted, its page opens. */
export function startForm(workflow, input) {
  const problem = h("p.problem", { role: "alert", "data-own": true });

  async function submit(event) {
    event.preventDefault();
    const form = event.currentTarget;
    const values = Object.fromEntries(new FormData(form));
    const shown = form.querySelector(".problem");
    shown.textContent = jsonProblem(values.input);
    if (shown.textContent) return;
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const started = await api.start(fieldsOf(workflow, values), values.input);
      location.hash = runLink(started.run.run_id);
      say(started.existing ? "It was started before under this key" : "The run is accepted");
    } catch (error) {
      shown.textContent = error.message;
    } finally {
      button.disabled = false;
    }
  }

  const text = (name, label, placeholder) => h("div.field", null, h("label", { for: `start-${name}` }, label), h("input", { id: `start-${name}`, name, placeholder, autocomplete: "off" }));
  return h(
    "form.start",
    { onsubmit: submit },
    h("div.field", null, h("label", { for: "start-input" }, "Input (JSON)"), h("textarea.code", { id: "start-input", name: "input", rows: Math.min(14, input.split("\n").length + 2), spellcheck: "false", value: input })),
    h(
      "details",
      null,
      h("summary", null, "Options"),
      h(
        "div.grid",
        null,
        text("id", "Workflow id", "made up if empty"), text("idempotency_key", "Idempotency key"),
        text("delay", "Begin after", "5m"), text("timeout", "Timeout", "1h"), text("attributes", "Attributes", "region=eu, customer=7"),
      ),
    ),
    problem,
    h("div.buttons", null, h("button.primary", { type: "submit" }, "Start")),
  );
}

function fieldsOf(workflow, { input: _, attributes, ...options }) {
  const given = Object.fromEntries(Object.entries(options).map(([name, value]) => [name, value.trim()]).filter(([, value]) => value));
  const pairs = attributes.split(",").map((one) => one.trim()).filter(Boolean).map((one) => {
    const [name, ...rest] = one.split("=");
    return [name.trim(), rest.join("=").trim()];
  });
  return { workflow, ...given, ...(pairs.length ? { attributes: Object.fromEntries(pairs) } : {}) };
}
