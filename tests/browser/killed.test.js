// Nodes are killed under the real SDK: the pages keep their WebSockets and get the right picture back.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startCluster } from "./support/cluster.js";
import { Operator } from "./support/operator.js";
import { BLUE, GREEN, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

const VIEWERS = ["v1", "v2"];
// As when nodes are drained: half a second is usual.
const MOVED_WITHIN_S = 2.5;
const FOLLOWED_WITHIN_S = 8;

let [stage, operator] = [];
before(async () => {
  stage = await Stage.open({ door: startCluster, oneNetwork: true });
  operator = new Operator(stage.demo);
});
after(() => stage?.close());

test("a publisher and its viewers outlive the death of their edge and then of their origin, sockets open, right picture back", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", RED);
    await clients.publish("author", "kept");
    await Promise.all(VIEWERS.map((viewer) => clients.viewer(viewer)));
    await Promise.all(VIEWERS.map((viewer) => clients.play(viewer, "kept")));
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "kept", RED)));

    const edge = await operator.home("play");
    await stage.demo.kill(edge);
    // Another colour shows that what is seen now came by the new way.
    await clients.paint("author", BLUE);
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "kept", BLUE)));
    assert.notEqual(await operator.home("play"), edge);
    const overEdge = await until("the gaps were measured", async () => {
      const gaps = await operator.gaps("play");
      return gaps.count === VIEWERS.length && gaps;
    });

    const origin = await operator.home("publish");
    await stage.demo.kill(origin);
    await clients.paint("author", GREEN);
    await Promise.all(VIEWERS.map((viewer) => clients.shows(viewer, "kept", GREEN)));
    assert.notEqual(await operator.home("publish"), origin);

    // A viewer whose edge finds the new origin by itself has not moved.
    const { published, played } = await until("the publisher's gap was measured", async () => {
      const [published, played] = [await operator.gaps("publish"), await operator.gaps("play")];
      return published.count === 1 && { published, played };
    });
    assert.ok(played.count >= VIEWERS.length && played.count <= 2 * VIEWERS.length, `${played.count} gaps`);
    console.log(`gaps: edge killed ${overEdge.mean.toFixed(2)} s; origin killed: publisher ${published.mean.toFixed(2)} s, all viewers ${played.mean.toFixed(2)} s`);
    assert.ok(overEdge.mean < MOVED_WITHIN_S, `viewers whose edge died had no picture for ${overEdge.mean} s`);
    assert.ok(published.mean < MOVED_WITHIN_S, `the publisher's picture was away for ${published.mean} s`);
    assert.ok(played.mean < FOLLOWED_WITHIN_S, `viewers had no picture for ${played.mean} s`);
    for (const name of ["author", ...VIEWERS]) {
      assert.equal(await clients.count(name, "closed"), 0, `${name} lost its WebSocket`);
      assert.equal(await clients.count(name, "play_finished"), 0, `${name} heard of an end`);
    }
  }));
