// A session's story: what happened to it, and from what its nodes were chosen.

import { ask } from "./api.js";
import { clock, h, percent } from "./draw.js";

const dialog = document.querySelector("#story");
const AGAIN_MS = 2_000;

let shown = null;
let drawn = "";

/** Shows a session's story, and keeps it current while it is open. */
export async function openStory(id) {
  shown = id;
  drawn = "";
  dialog.querySelector("h2").textContent = `Session ${id}`;
  dialog.querySelector(".body").replaceChildren(h("p", { class: "soft" }, "…"));
  if (!dialog.open) dialog.showModal();
  while (shown === id && dialog.open) {
    await draw(id);
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
}

dialog.addEventListener("close", () => void (shown = null));

async function draw(id) {
  const body = dialog.querySelector(".body");
  try {
    const session = await ask(`/v1/sessions/${id}`);
    const text = JSON.stringify(session);
    if (shown !== id || text === drawn) return;
    drawn = text;
    body.replaceChildren(...parts(session));
  } catch (error) {
    if (shown === id) body.replaceChildren(h("p", { class: "trouble" }, error.message));
  }
}

function parts(session) {
  const end = session.ended_at ? `, ended at ${clock(session.ended_at)} (${session.ended_by})` : "";
  const about = `${session.app}, client ${session.client}${session.tls ? " over TLS" : ""}, since ${clock(session.connected_at)}${end}`;
  const placements = session.placements.flatMap(placement);
  const forgotten = session.forgotten ? h("p", { class: "soft" }, `${session.forgotten} events in between are not kept.`) : null;
  return [
    h("p", {}, about),
    h("h3", {}, "What happened"),
    h("ol", {}, ...session.story.map(line)),
    forgotten,
    placements.length ? h("h3", {}, "Where it was placed, and why") : null,
    ...placements,
  ].filter((part) => part !== null);
}

/** An event in words. */
export function words(event) {
  const parts = [event.event.replaceAll("_", " ")];
  if (event.purpose) parts.push(event.purpose);
  if (event.stream) parts.push(event.stream);
  if (event.node) parts.push(`on ${event.node}`);
  if (event.from) parts.push(`from the ${event.from}`);
  if (event.rule) parts.push(`by ${event.rule.replaceAll("_", " ")}`);
  if (event.cause) parts.push(`(${event.cause.replaceAll("_", " ")})`);
  if (event.took_ms !== undefined) parts.push(`after ${event.took_ms} ms`);
  return parts.join(" ");
}

function line(event) {
  return h("li", { "data-event": event.event }, h("time", { datetime: event.at, title: event.at }, `+${(event.after_ms / 1000).toFixed(3)} s`), h("span", {}, words(event)));
}

function placement({ at, stream, kind, node, rule, blind, candidates }) {
  const what = [clock(at), kind, stream, "on", node, "by", rule.replaceAll("_", " "), blind ? "(without a record)" : null];
  const row = (one) => h("tr", {}, h("th", { scope: "row" }, one.node), h("td", {}, percent(one.predicted)), h("td", {}, one.score.toPrecision(3)), h("td", {}, one.why));
  return [
    h("p", {}, what.filter((word) => word !== null).join(" ")),
    h("table", {},
      h("thead", {}, h("tr", {}, ...["Node", "Load", "Score", "Why"].map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, ...candidates.map(row))),
  ];
}
