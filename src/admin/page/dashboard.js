// The dashboard: asks the API every other second for what is shown, and hears of events as they happen.

import { Refused, ask, list, listen, token } from "./api.js";
import { Rows, clock, h, loadLine, percent, plural, since, span, time } from "./draw.js";
import { drainCell, drainKey, onChange } from "./drain.js";
import { openStory, words } from "./story.js";

const LOOK_MS = 2_000;
const MOST_NODES = 5_000;
const MOST_ROWS = 200;
const MOST_EVENTS = 300;

const $ = (selector) => document.querySelector(selector);
const notices = new Map();
const filter = { label: "all", query: "" };
let lastAnswer = null;
let looking = null;

const nodes = new Rows($("#nodes .rows"), [
  { name: "name", header: true, key: (node) => [node.id, node.address], draw: (node) => [filterButton(node.id, `node=${encodeURIComponent(node.id)}`, `on ${node.id}`), sub(node.address)] },
  { name: "role", key: (node) => [node.role, node.zone], draw: (node) => [node.role, node.zone ? sub(`zone ${node.zone}`) : null] },
  { name: "state", key: (node) => [node.state, node.reason, since(node.since)], draw: (node) => [h("span", { class: "state", "data-state": node.state }, node.state), sub(`${node.reason}, ${since(node.since)}`)] },
  { name: "load", key: (node) => [node.load.predicted, node.history], draw: (node) => h("span", { class: "load" }, loadLine(node.history, node.load.predicted), h("b", {}, percent(node.load.predicted))) },
  { name: "publishes", number: true, key: (node) => node.legs.publish, draw: (node) => String(node.legs.publish) },
  { name: "plays", number: true, key: (node) => node.legs.play, draw: (node) => String(node.legs.play) },
  { name: "drain", key: drainKey, draw: drainCell },
]);
const streams = new Rows($("#streams .rows"), [
  { name: "stream", header: true, key: (stream) => [stream.app, stream.stream], draw: ({ app, stream }) => [filterButton(stream, `app=${app}&stream=${stream}`, `of ${app}/${stream}`), sub(app)] },
  { name: "origin", key: (stream) => stream.origin, draw: (stream) => stream.origin ?? "unknown" },
  { name: "viewers", number: true, key: (stream) => stream.viewers, draw: (stream) => String(stream.viewers) },
  { name: "edges", key: (stream) => stream.edges, draw: (stream) => stream.edges.map((edge) => `${edge.node} (${edge.viewers})`).join(", ") || "–" },
]);
const sessions = new Rows($("#sessions .rows"), [
  { name: "session", header: true, key: (session) => session.id, draw: ({ id }) => h("button", { type: "button", class: "link", onclick: () => void openStory(id) }, id) },
  { name: "client", key: (session) => session.client, draw: (session) => [session.client, sub(session.app)] },
  { name: "since", key: (session) => since(session.connected_at), draw: (session) => since(session.connected_at) },
  { name: "legs", key: (session) => session.legs, draw: (session) => session.legs.map((leg) => `${leg.kind} ${leg.stream} ${leg.node ? `on ${leg.node}` : ""} (${leg.state})`).join(", ") || "none" },
]);

function sub(text) {
  return h("span", { class: "sub" }, text);
}

/** A name that, pressed, shows its sessions. */
function filterButton(name, query, label) {
  return h("button", { type: "button", class: "link", title: `show the sessions ${label}`, onclick: () => choose(query, label) }, name);
}

function choose(query, label) {
  Object.assign(filter, { query, label });
  $("#filter span").textContent = label;
  $("#filter button").hidden = query === "";
  void look();
  if (query) $("#sessions").focus();
}

/** Looks at everything once; one look at a time. */
function look() {
  looking ??= lookAll().finally(() => void (looking = null));
  return looking;
}

async function lookAll() {
  try {
    const [door, capacity, cluster, streaming, connected] = await Promise.all([
      ask("/v1/door"),
      ask("/v1/capacity"),
      list("/v1/nodes?history=true", "nodes", MOST_NODES),
      list("/v1/streams", "streams", MOST_ROWS),
      list(`/v1/sessions${filter.query && `?${filter.query}`}`, "sessions", MOST_ROWS).catch(gone),
    ]);
    $("#token").hidden = true;
    $("main").hidden = false;
    lastAnswer = new Date();
    notice("lost", null);
    showDoor(door, capacity);
    show($("#nodes"), nodes, cluster, (node) => node.id);
    showStreams(streaming);
    show($("#sessions"), sessions, connected, (session) => session.id);
  } catch (error) {
    showTrouble(error);
  }
}

/** What is filtered by may have left. */
function gone(error) {
  if (error instanceof Refused && error.status === 404) return { rows: [], more: false };
  throw error;
}

function showTrouble(error) {
  if (error instanceof Refused && error.status === 401) {
    $("#token").hidden = false;
    $("main").hidden = true;
    if (token.get()) notice("token", "That token is not valid.", "bad");
    return;
  }
  const seen = lastAnswer ? ` What you see is from ${lastAnswer.toLocaleTimeString([], { hour12: false })}.` : "";
  notice("lost", `This door does not answer (${error.message}).${seen}`, "bad");
}

function showDoor(door, capacity) {
  const peers = door.peers.length ? `, ${plural(door.peers.length, "other door")}` : "";
  $("#door").replaceChildren(`${door.name}: `, h("span", { class: "state", "data-state": door.state }, door.state.replace("_", " ")), `, ${plural(door.sessions, "session")}${peers}`);
  document.title = `Forebay: ${door.name}`;
  const away = door.store.status === "away";
  const since_ = away && door.store.away_since ? ` since ${clock(door.store.away_since)}` : "";
  notice("store", away ? `MongoDB does not answer${since_}. Streams go on and known ones are placed; drains hold, but move nobody. Records, reported loads, and what other doors carry, are as old as that.` : null);
  const odd = door.peers.filter((peer) => !peer.agrees).map((peer) => peer.name);
  notice("peers", odd.length ? `Other doors know other nodes: ${odd.join(", ")}. They place differently.` : null);
  const left = door.drain && (door.drain.drained ? "It is empty." : `${plural(door.drain.sessions, "session")} left, at most ${span(new Date(door.drain.deadline) - Date.now())}.`);
  notice("drain", door.drain ? `This door empties itself: load balancers look away. ${left}` : null);
  const number = (value, label) => h("div", {}, h("strong", {}, value), h("span", {}, label));
  const full = ({ minutes_to_full: minutes }) => (minutes === null ? "" : `, full in ${span(minutes * 60_000)} at this rate`);
  const cheapest = capacity.cheapest_to_remove.map((one) => one.node).join(", ");
  $("#numbers").replaceChildren(
    number(String(capacity.publish.open), "publishes on all nodes"),
    number(String(capacity.play.open), "plays on all nodes"),
    number(String(capacity.publish.fit), `more publishes fit${full(capacity.publish)}`),
    number(String(capacity.play.fit), `more plays fit${full(capacity.play)}`),
    number(cheapest || "none", "cheapest to remove"),
  );
}

function show(section, rows, { rows: list, more }, keyOf) {
  rows.show(list, keyOf);
  section.querySelector(".empty").hidden = list.length > 0;
  const hint = section.querySelector(".more");
  if (hint) {
    hint.hidden = !more;
    hint.textContent = `The first ${list.length}; there are more.`;
  }
}

let allStreams = { rows: [], more: false };

function showStreams(streaming) {
  allStreams = streaming;
  const find = $("#streams [name=find]").value.trim().toLowerCase();
  const rows = streaming.rows.filter(({ app, stream }) => `${app}/${stream}`.toLowerCase().includes(find));
  show($("#streams"), streams, { rows, more: streaming.more }, ({ app, stream }) => `${app}/${stream}`);
}

/** Shows a notice by its name, or takes it away. */
function notice(name, text, kind = "") {
  const known = notices.get(name);
  if (!text) {
    known?.remove();
    notices.delete(name);
  } else if (known) {
    if (known.textContent !== text) known.textContent = text;
  } else {
    const element = h("p", { class: kind, "data-notice": name }, text);
    notices.set(name, element);
    $("#notices").append(element);
  }
}

/** Says something to who does not see the page. */
function say(text) {
  $("#said").textContent = text;
}

function heard(name, data) {
  if (name === "node" || name === "gone" || name === "change" || name === "store") void look();
  if (name === "node") say(`${data.id} is ${data.state}: ${data.reason}`);
  if (name === "store") say(data.status === "away" ? "MongoDB does not answer" : "MongoDB answers");
  if ($("#events [name=pause]").checked) return;
  const text = {
    node: () => `node ${data.id} is ${data.state}: ${data.reason}`,
    gone: () => `node ${data.node} has left`,
    store: () => `the record store is ${data.status}`,
    change: () => `${data.who}: ${data.what.replaceAll("_", " ")} ${data.of}`,
    session: () => words(data),
    lagged: () => `${data.missed} events were missed: too many at once`,
  }[name]?.();
  if (!text) return;
  const session = name === "session" ? h("button", { type: "button", class: "link", onclick: () => void openStory(data.session) }, data.session.slice(0, 6)) : null;
  const line = h("li", { "data-event": name }, time(data.at ?? new Date().toISOString()), session, h("span", {}, text));
  const log = $("#events ol");
  $("#events .empty").hidden = true;
  log.prepend(line);
  while (log.children.length > MOST_EVENTS) log.lastChild.remove();
}

function live(state) {
  $("#live").dataset.state = state;
  $("#live").textContent = state === "good" ? "live" : "connecting";
}

$("#token").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set($("#token [name=token]").value);
  notice("token", null);
  void look();
});
$("#filter button").addEventListener("click", () => choose("", "all"));
$("#streams [name=find]").addEventListener("input", () => showStreams(allStreams));
onChange((text) => {
  say(text);
  void look();
});
document.addEventListener("visibilitychange", () => void (document.hidden || look()));

void listen(heard, live);
for (;;) {
  if (!document.hidden) await look();
  await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
}
