// An operator empties nodes under the real SDK: the pages keep their WebSockets and get the right picture back.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Operator } from "./support/operator.js";
import { BLUE, GREEN, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

const VIEWERS = ["v1", "v2", "v3"];
const DRAIN_WITHIN_MS = 40_000;
// Half a second is usual where the machine has nothing else to do; a client that begins a new path takes over 3 s.
const MOVED_WITHIN_S = 2.5;
// These wait in addition for their publisher, for its record, and for their edge to find it.
const FOLLOWED_WITHIN_S = 8;

let [stage, operator] = [];
before(async () => {
  stage = await Stage.open({ oneNetwork: true });
  operator = new Operator(stage.demo);
});
after(() => stage?.close());

async function drained(node) {
  await until(
    `${node} is drained`,
    async () => {
      const { state, drain } = await operator.ask("GET", `/v1/nodes/${node}`);
      if (state === "drained") return true;
      throw new Error(JSON.stringify({ state, drain }));
    },
    { withinMs: DRAIN_WITHIN_MS },
  );
}

test("a publisher and its viewers outlive the drain of their edge and then of their origin, sockets open, right picture back", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", RED);
    await clients.publish("author", "moved");
    await Promise.all(VIEWERS.map((viewer) => clients.viewer(viewer)));
    await Promise.all(VIEWERS.map((viewer) => clients.play(viewer, "moved")));
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "moved", RED)));

    const edge = await operator.home("play");
    await operator.ask("PUT", `/v1/nodes/${edge}/drain`, { per_second: 10 });
    await drained(edge);
    // Another colour shows that what is seen now came by the new way.
    await clients.paint("author", BLUE);
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "moved", BLUE)));
    assert.notEqual(await operator.home("play"), edge);
    const overEdge = await operator.gaps("play");
    assert.equal(overEdge.count, VIEWERS.length);

    const origin = await operator.home("publish");
    await operator.ask("PUT", `/v1/nodes/${origin}/drain`, {});
    await drained(origin);
    await clients.paint("author", GREEN);
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "moved", GREEN)));
    assert.notEqual(await operator.home("publish"), origin);

    const [published, played] = [await operator.gaps("publish"), await operator.gaps("play")];
    console.log(`gaps: edge ${overEdge.mean.toFixed(2)} s; origin: publisher ${published.mean.toFixed(2)} s, all viewers ${played.mean.toFixed(2)} s`);
    assert.ok(overEdge.mean < MOVED_WITHIN_S, `viewers whose edge was drained had no picture for ${overEdge.mean} s`);
    assert.ok(published.mean < MOVED_WITHIN_S, `the publisher's picture was away for ${published.mean} s`);
    assert.ok(played.mean < FOLLOWED_WITHIN_S, `viewers had no picture for ${played.mean} s`);
    assert.equal(published.count, 1);
    assert.equal(played.count, 2 * VIEWERS.length);
    for (const name of ["author", ...VIEWERS]) {
      assert.equal(await clients.count(name, "closed"), 0, `${name} lost its WebSocket`);
      assert.equal(await clients.count(name, "play_finished"), 0, `${name} heard of an end`);
    }
    for (const node of [edge, origin]) await operator.ask("DELETE", `/v1/nodes/${node}/drain`);
  }));
