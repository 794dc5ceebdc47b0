// Nodes that are built on libwebrtc, as AMS is, are emptied under the real SDK: the same browser's WebRTC on both sides of the
// door, once as a client that stays on its path and once as a node that has never heard of that client.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startChromium } from "./support/chromium.js";
import { openPage, startNode, tables } from "./support/libwebrtc_node.js";
import { Operator } from "./support/operator.js";
import { serve } from "./support/serve.js";
import { BLUE, GREEN, near, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

const COLOURS = { "libwebrtc-1": RED, "libwebrtc-2": BLUE };
const STREAM = "any";
// As for the demo's nodes: half a second is usual.
const MOVED_WITHIN_S = 2.5;

let [stage, operator, chromium, nodes] = [];
before(async () => {
  nodes = Object.fromEntries(await Promise.all(Object.keys(COLOURS).map(async (name) => [name, await startNode()])));
  const door = async () => {
    const door = await serve(tables(nodes));
    return { ...door, webSocket: () => `${door.http.replace("http", "ws")}/LiveApp/websocket` };
  };
  stage = await Stage.open({ door, oneNetwork: true });
  operator = new Operator(stage.demo);
  chromium = await startChromium();
  for (const [name, node] of Object.entries(nodes)) {
    node.page = await openPage(chromium.browser, stage.pages, node);
    await node.page.evaluate((colour) => window.node.start("video/VP8", colour), COLOURS[name]);
  }
});
after(async () => {
  await stage?.close();
  await chromium?.close();
  for (const node of Object.values(nodes ?? {})) await node.close();
});

/** Empties the node that has the legs of this kind, while `moved` is waited for; resolves with the gap that was measured. */
async function drain(kind, moved) {
  const [home, before] = [await operator.home(kind), (await operator.gaps(kind)).count];
  const other = Object.keys(COLOURS).find((name) => name !== home);
  await operator.ask("PUT", `/v1/nodes/${home}/drain`, {});
  await moved(other);
  assert.equal(await operator.home(kind), other);
  const { mean } = await until("the gap was measured", async () => {
    const gaps = await operator.gaps(kind);
    return gaps.count === before + 1 && gaps;
  });
  await operator.ask("DELETE", `/v1/nodes/${home}/drain`);
  return mean;
}

test("a viewer's picture comes from the next libwebrtc node, its socket open", () =>
  stage.withClients(async (clients) => {
    await clients.viewer("viewer");
    await clients.play("viewer", STREAM);
    await clients.shows("viewer", STREAM, COLOURS[await operator.home("play")]);
    const gap = await drain("play", (other) => clients.shows("viewer", STREAM, COLOURS[other]));
    // And back, by a leg that has moved already.
    const again = await drain("play", (other) => clients.shows("viewer", STREAM, COLOURS[other]));
    console.log(`gaps: viewer of a libwebrtc node ${gap.toFixed(2)} s, mean with the way back ${again.toFixed(2)} s`);
    assert.ok(again < MOVED_WITHIN_S, `${again} s`);
    assert.equal(await clients.count("viewer", "closed"), 0);
    assert.equal(await clients.count("viewer", "play_finished"), 0);
    await clients.stop("viewer", STREAM);
  }));

test("a publisher's picture goes to the next libwebrtc node, its socket open", () =>
  stage.withClients(async (clients) => {
    const arrives = (name) =>
      until(`${name} gets the picture`, async () => {
        const rgb = await nodes[name].page.evaluate(() => window.node.seen());
        if (near(rgb, GREEN)) return true;
        throw new Error(`rgb(${rgb})`);
      });
    await clients.publisher("author", GREEN);
    await clients.publish("author", STREAM);
    await arrives(await operator.home("publish"));
    const gap = await drain("publish", arrives);
    const again = await drain("publish", arrives);
    console.log(`gaps: publisher to a libwebrtc node ${gap.toFixed(2)} s, mean with the way back ${again.toFixed(2)} s`);
    assert.ok(again < MOVED_WITHIN_S, `${again} s`);
    assert.equal(await clients.count("author", "closed"), 0);
    assert.equal(await clients.count("author", "publish_finished"), 0);
  }));
