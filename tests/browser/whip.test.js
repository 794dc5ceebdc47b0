// WHIP and WHEP in a real browser, from a page of another origin, with no library at all; viewers and publishers of the
// SDK at the other end.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BLUE, GREEN, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

const COLOUR_TOLERANCE = 60;
const MORE_FRAMES = 20;

let stage;
before(async () => void (stage = await Stage.open()));
after(() => stage?.close());

const whip = (stream) => `${stage.demo.http}/LiveApp/whip/${stream}`;
const whep = (stream) => `${stage.demo.http}/LiveApp/whep/${stream}`;

test("a page publishes by WHIP and another watches by WHEP, across origins", () =>
  withPage(async (call) => {
    const published = await begin(call, "author", "publisher", whip("plain"), RED);
    assert.match(published.location, /^\/LiveApp\/whip\/plain\/[0-9a-f]{32}$/);
    assert.match(published.etag, /^"[^"]+"$/);
    assert.ok(!published.answer.includes("127.0.1."), "no node shows itself");

    const viewed = await begin(call, "reader", "viewer", whep("plain"));
    assert.match(viewed.location, /^\/LiveApp\/whep\/plain\/[0-9a-f]{32}$/);
    assert.ok(!viewed.answer.includes("127.0.1."), "no node shows itself");
    assert.ok(viewed.answer.includes("a=setup:passive") && viewed.answer.includes("a=sendonly"), viewed.answer);
    await shows(call, "reader", RED);

    const { codecs } = await call("stats", "reader");
    for (const number of codecs.filter((one) => typeof one === "number")) {
      assert.ok(viewed.offer.includes(`a=rtpmap:${number} `), `${number} is one of its own payload types`);
    }

    assert.equal((await call("trickle", "reader")).status, 204);
    assert.equal((await call("trickle", "reader", '"another"')).status, 412);
    assert.equal(await call("remove", "reader"), 200);
    assert.equal(await call("remove", "reader"), 200, "again");
    assert.equal(await call("remove", "author"), 200);
  }));

test("a viewer that wants more than there is, in another order, gets what there is", () =>
  withPage(async (call) => {
    await begin(call, "author", "publisher", whip("order"), GREEN);
    await call("viewer", "reader", whep("order"), ["video", "audio", "video"]);
    const { status, answer } = await call("begin", "reader");
    assert.equal(status, 201, answer);
    assert.deepEqual([...answer.matchAll(/^m=(\w+) (\d+)/gm)].map(([, kind, port]) => [kind, port]), [["video", "9"], ["audio", "9"], ["video", "0"]]);
    await shows(call, "reader", GREEN);
  }));

test("a viewer who numbers H.264 otherwise than the node gets it by his own number", () =>
  withPage(async (call) => {
    await call("publisher", "author", whip("h264"), BLUE);
    // Of the profiles that Chromium offers not the first: nodes have one number for all of them.
    await call("prefer", "author", "video", "video/H264", "packetization-mode=1;profile-level-id=42e01f");
    assert.equal((await call("begin", "author")).status, 201);
    const { offer, answer } = await begin(call, "reader", "viewer", whep("h264"));
    const [, number] = /^m=video 9 \S+ (\d+)/m.exec(answer);
    assert.notEqual(number, "102", "the node's own");
    assert.ok(offer.includes(`a=rtpmap:${number} H264/90000`), `${number} in ${offer}`);
    await shows(call, "reader", BLUE);
    const { codecs } = await call("stats", "reader");
    assert.ok(codecs.includes(Number(number)) && codecs.includes("video/H264"), `${codecs}`);
  }));

test("a viewer whose codecs nobody sends is told so", () =>
  withPage(async (call) => {
    await begin(call, "author", "publisher", whip("codecs"), GREEN);
    await call("viewer", "reader", whep("codecs"), ["video"]);
    await call("prefer", "reader", "video", "video/AV1");
    assert.equal((await call("begin", "reader")).status, 406);
  }));

test("a publisher restarts ICE and its viewer watches on", () =>
  withPage(async (call) => {
    await begin(call, "author", "publisher", whip("restart"), BLUE);
    const { etag } = await begin(call, "reader", "viewer", whep("restart"));
    await shows(call, "reader", BLUE);

    const restarted = await call("restart", "author");
    assert.equal(restarted.status, 200);
    assert.notEqual(restarted.etag, etag);
    await shows(call, "reader", BLUE);
  }));

test("the SDK watches what WHIP publishes, and WHEP what the SDK publishes", () =>
  withPage(async (call) => {
    await begin(call, "author", "publisher", whip("by-whip"), RED);
    await stage.withClients(async (clients) => {
      await clients.viewer("sdk-reader");
      await clients.play("sdk-reader", "by-whip");
      await clients.shows("sdk-reader", "by-whip", RED);
      await clients.publisher("sdk-author", GREEN);
      await clients.publish("sdk-author", "by-sdk");
      await begin(call, "reader", "viewer", whep("by-sdk"));
      await shows(call, "reader", GREEN);
    });
  }));

test("what is not there, or taken, is said in HTTP's words across origins", () =>
  withPage(async (call) => {
    await call("viewer", "reader", whep("nobody"));
    assert.equal((await call("begin", "reader")).status, 404);
    await begin(call, "author", "publisher", whip("taken"), RED);
    await call("publisher", "second", whip("taken"), BLUE);
    assert.equal((await call("begin", "second")).status, 409);
  }));

/** Opens a page of WHIP and WHEP clients; prints the demo's log if `body` fails. */
async function withPage(body) {
  const page = await stage.chromium.browser.newPage();
  try {
    await page.goto(`${stage.pages.url}/whip.html`, { waitUntil: "load" });
    await page.waitForFunction("window.whip !== undefined");
    await body((method, ...given) => page.evaluate((called, rest) => window.whip[called](...rest), method, given));
  } catch (error) {
    console.error(stage.demo.log());
    throw error;
  } finally {
    await page.close();
  }
}

async function begin(call, name, kind, endpoint, ...rest) {
  await call(kind, name, endpoint, ...rest);
  const told = await call("begin", name);
  assert.equal(told.status, 201, `${kind}: ${JSON.stringify(told)}`);
  return told;
}

/** Resolves when a viewer decodes ever more frames, in this colour, with sound. */
async function shows(call, name, colour) {
  await until(`${name} shows rgb(${colour})`, async () => {
    const picture = await call("picture", name);
    if (picture.rgb.every((channel, i) => Math.abs(channel - colour[i]) <= COLOUR_TOLERANCE)) return true;
    throw new Error(`rgb(${picture.rgb}), ${picture.frames} frames, ${await call("states", name)}, ${JSON.stringify(await call("stats", name))}`);
  });
  const first = await call("stats", name);
  await until(`${name} decodes ${MORE_FRAMES} more frames`, async () => {
    const now = await call("stats", name);
    return now.framesDecoded >= first.framesDecoded + MORE_FRAMES && now.audioPackets > first.audioPackets;
  });
}
