// A node that is built on libwebrtc, as AMS is: a page of the browser plays AMS's part of `play` behind the door, and
// another page watches it by WHEP. Both offer.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startChromium } from "./support/chromium.js";
import { openPage, startNode, tables } from "./support/libwebrtc_node.js";
import { servePages } from "./support/page_server.js";
import { serve } from "./support/serve.js";
import { near, RED } from "./support/stage.js";
import { until } from "./support/until.js";

let [chromium, pages, node, door] = [];
before(async () => {
  [chromium, pages] = [await startChromium(), await servePages()];
  node = await startNode();
  door = await serve(tables({ libwebrtc: node }));
});
after(async () => {
  await door?.stop();
  await chromium?.close();
  await pages?.close();
  await node?.close();
});

for (const codec of ["video/VP8", "video/H264"]) {
  test(`a WHEP viewer watches ${codec} of a libwebrtc node, each in its own numbers`, async () => {
    const open = () => openPage(chromium.browser, pages, node);
    const [inside, outside] = [await open(), await open()];
    node.page = inside;
    await inside.evaluate((mimeType, colour) => window.node.start(mimeType, colour), codec, RED);
    const call = (method, ...given) => outside.evaluate((called, rest) => window.whip[called](...rest), method, given);
    // The viewer's sections stand in another order than the node's.
    await call("viewer", "reader", `${door.http}/LiveApp/whep/any`, ["audio", "video"]);
    const { status, answer, offer } = await call("begin", "reader");
    assert.equal(status, 201, answer);
    const [, number] = /^m=video 9 \S+ (\d+)/m.exec(answer);
    assert.ok(offer.includes(`a=rtpmap:${number} ${codec.slice(6)}/90000`));
    const seen = async () => {
      const { rgb } = await call("picture", "reader");
      const { framesDecoded, audioPackets } = await call("stats", "reader");
      if (near(rgb, RED) && framesDecoded > 40 && audioPackets > 40) return true;
      throw new Error(`rgb(${rgb}), ${framesDecoded} frames, ${audioPackets} of audio, ${await call("states", "reader")}`);
    };
    await until("the viewer sees it", seen).catch((error) => {
      console.error(door.log());
      throw error;
    });
    const sent = await inside.evaluate(() => window.node.numbers());
    assert.equal(sent.video.used, Number(number), "the node sends by the viewer's number");
    assert.notEqual(sent.video.used, sent.video.offered, "which is not its own");
    assert.equal(await call("remove", "reader"), 200);
    await Promise.all([inside.close(), outside.close()]);
  });
}
