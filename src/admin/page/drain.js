// Draining a node: the question, the progress, and taking it back.

import { ask } from "./api.js";
import { h, plural, span } from "./draw.js";

const dialog = document.querySelector("#drain");
const form = dialog.querySelector("form");
const trouble = dialog.querySelector(".trouble");

let wanted = null;
let changed = () => {};

/** Calls `then` whenever a drain was started or taken back here, with what to say of it. */
export function onChange(then) {
  changed = then;
}

function question(node) {
  wanted = node.id;
  dialog.querySelector("h2").textContent = `Drain ${node.id}`;
  form.reset();
  trouble.hidden = true;
  follow();
  dialog.showModal();
}

/** Legs that stay have no deadline, and only legs that move have a pace. */
function follow() {
  const { migrate, deadline, per_second: pace } = form.elements;
  deadline.disabled = migrate.value === "none";
  pace.disabled = migrate.value !== "paced";
}

form.elements.migrate.addEventListener("change", follow);
form.addEventListener("submit", async (event) => {
  if (event.submitter?.value !== "drain") return;
  event.preventDefault();
  const { migrate, deadline, per_second: pace, force } = form.elements;
  const body = { migrate: migrate.value, force: force.checked };
  if (!deadline.disabled) body.deadline = deadline.value;
  if (!pace.disabled) body.per_second = Number(pace.value);
  try {
    await ask(`/v1/nodes/${encodeURIComponent(wanted)}/drain`, { method: "PUT", body });
    dialog.close();
    changed(`${wanted} is being drained`);
  } catch (error) {
    trouble.textContent = error.message;
    trouble.hidden = false;
  }
});

async function takeBack(node, button) {
  button.disabled = true;
  try {
    await ask(`/v1/nodes/${encodeURIComponent(node.id)}/drain`, { method: "DELETE" });
    changed(`The drain of ${node.id} is withdrawn`);
  } catch (error) {
    changed(`${node.id}: ${error.message}`);
    button.disabled = false;
  }
}

/** The cell of a node's drain. */
export function drainCell(node) {
  const { drain } = node;
  if (!drain) {
    const button = h("button", { type: "button", class: "quiet", onclick: () => question(node), "aria-label": `Drain ${node.id}` }, "Drain");
    return h("div", { class: "drain" }, button);
  }
  const back = h("button", { type: "button", class: "quiet", "aria-label": `${drain.drained_at ? "Take back" : "Cancel the drain of"} ${node.id}` },
    drain.drained_at ? "Take back" : "Cancel drain");
  back.addEventListener("click", () => takeBack(node, back));
  const left = drain.legs.publish + drain.legs.play;
  const done = drain.moved + drain.failed;
  if (drain.drained_at) {
    return h("div", { class: "drain" }, h("span", {}, `empty; ${drain.moved} moved`), back);
  }
  const text = [`${plural(left, "leg")} left, ${drain.moved} moved`];
  if (drain.failed) text.push(`${drain.failed} failed`);
  if (drain.streams) text.push(`${plural(drain.streams, "stream")} live by the records`);
  if (drain.deadline) text.push(`at most ${span(new Date(drain.deadline) - Date.now())}`);
  const bar = h("progress", { max: Math.max(1, left + done), value: done, "aria-label": `Drain of ${node.id}` });
  const kept = drain.kept === "cluster" ? null : h("span", { class: "sub" }, "kept by this door only");
  return h("div", { class: "drain" }, h("span", {}, text.join(", ")), bar, kept, back);
}

/** What the cell depends on; the time that is left changes it once a second at most. */
export function drainKey(node) {
  const { drain } = node;
  const left = drain?.deadline && !drain.drained_at ? Math.round((new Date(drain.deadline) - Date.now()) / 5000) : null;
  return [drain, left];
}
