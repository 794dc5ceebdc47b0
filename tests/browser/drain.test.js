// An operator empties nodes under the real SDK: the pages keep their WebSockets and get the right picture back.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BLUE, GREEN, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

const VIEWERS = ["v1", "v2", "v3"];
const DRAIN_WITHIN_MS = 40_000;

let stage;
before(async () => void (stage = await Stage.open()));
after(() => stage?.close());

async function admin(method, path, body) {
  const answer = await fetch(`${stage.demo.admin}${path}`, {
    method,
    ...(body && { body: JSON.stringify(body), headers: { "content-type": "application/json" } }),
  });
  const text = await answer.text();
  assert.ok(answer.ok, `${method} ${path}: ${answer.status} ${text}`);
  return text && (answer.headers.get("content-type") ?? "").includes("json") ? JSON.parse(text) : text;
}

/** The only node that has legs of this kind. */
async function home(kind) {
  return until(`one node has all ${kind} legs`, async () => {
    const { nodes } = await admin("GET", "/v1/nodes");
    const having = nodes.filter(({ legs }) => legs[kind] > 0).map(({ id }) => id);
    if (having.length === 1) return having[0];
    throw new Error(having.join(", "));
  });
}

async function drained(node) {
  await until(
    `${node} is drained`,
    async () => {
      const { state, drain } = await admin("GET", `/v1/nodes/${node}`);
      if (state === "drained") return true;
      throw new Error(JSON.stringify({ state, drain }));
    },
    { withinMs: DRAIN_WITHIN_MS },
  );
}

/** How many gaps of a kind were measured, and their mean in seconds. */
async function gaps(kind) {
  const text = await admin("GET", "/metrics");
  const value = (suffix) =>
    Number(new RegExp(`^forebay_migration_${kind}_gap_seconds_${suffix} (\\S+)$`, "m").exec(text)?.[1] ?? 0);
  return { count: value("count"), mean: value("sum") / Math.max(1, value("count")) };
}

test("a publisher and its viewers outlive the drain of their edge and then of their origin, sockets open, right picture back", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", RED);
    await clients.publish("author", "moved");
    await Promise.all(VIEWERS.map((viewer) => clients.viewer(viewer)));
    await Promise.all(VIEWERS.map((viewer) => clients.play(viewer, "moved")));
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "moved", RED)));

    const edge = await home("play");
    await admin("PUT", `/v1/nodes/${edge}/drain`, { per_second: 10 });
    await drained(edge);
    // Another colour shows that what is seen now came by the new way.
    await clients.paint("author", BLUE);
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "moved", BLUE)));
    assert.notEqual(await home("play"), edge);
    const overEdge = await gaps("play");
    assert.equal(overEdge.count, VIEWERS.length);

    const origin = await home("publish");
    await admin("PUT", `/v1/nodes/${origin}/drain`, {});
    await drained(origin);
    await clients.paint("author", GREEN);
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "moved", GREEN)));
    assert.notEqual(await home("publish"), origin);

    const [published, played] = [await gaps("publish"), await gaps("play")];
    console.log(`gaps: edge ${overEdge.mean.toFixed(2)} s; origin: publisher ${published.mean.toFixed(2)} s, all viewers ${played.mean.toFixed(2)} s`);
    assert.equal(published.count, 1);
    assert.equal(played.count, 2 * VIEWERS.length);
    for (const name of ["author", ...VIEWERS]) {
      assert.equal(await clients.count(name, "closed"), 0, `${name} lost its WebSocket`);
      assert.equal(await clients.count(name, "play_finished"), 0, `${name} heard of an end`);
    }
    for (const node of [edge, origin]) await admin("DELETE", `/v1/nodes/${node}/drain`);
  }));
