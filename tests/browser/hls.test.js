// An HLS player in a real browser, through the door: pages, playlists and segments come from a node behind it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startChromium } from "./support/chromium.js";
import { startHlsNode } from "./support/hls_node.js";
import { serve } from "./support/serve.js";
import { until } from "./support/until.js";

// What the page records, and how much of it has to be played.
const RECORDED_MS = 4_000;
const PLAYED_SECONDS = 2;

let node;
let door;
let chromium;
before(async () => {
  node = await startHlsNode();
  door = await serve(`[apps]\nLiveApp = {}\n[[nodes.static]]\nname = "edge-1"\naddress = "${node.address}"\nrole = "edge"\n`);
  chromium = await startChromium();
});
after(async () => {
  await chromium?.close();
  await door?.stop();
  await node?.close();
});

test("an HLS player plays a stream through the door", async () => {
  const page = await chromium.browser.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  try {
    await page.goto(`${door.http}/LiveApp/hls.html`, { waitUntil: "load" });
    const { base64, codecs } = await page.evaluate(record, RECORDED_MS);
    const fragments = node.publish("cam", Buffer.from(base64, "base64"), codecs);
    assert.ok(fragments >= 2, `${fragments} fragments`);

    await page.evaluate(play, "/LiveApp/streams/cam_adaptive.m3u8");
    await until("the picture moves on", async () => {
      const seen = await page.evaluate(look);
      if (seen.time >= PLAYED_SECONDS && seen.width > 0 && seen.frames > PLAYED_SECONDS * 5) return true;
      throw new Error(JSON.stringify(seen));
    });
  } catch (error) {
    console.error([...errors, JSON.stringify(node.asked, null, 1), door.log()].join("\n"));
    throw error;
  } finally {
    await page.close();
  }
  assert.deepEqual(errors, []);
  const media = node.asked.filter(({ path }) => path.startsWith("/LiveApp/streams/"));
  assert.ok(media.some(({ path }) => path.endsWith(".fmp4")), "its segments came through the door");
  assert.ok(media.every(({ forwardedFor }) => forwardedFor === "127.0.0.1"), "the node knows who watches");
  const later = media.filter(({ path }) => !path.endsWith("_adaptive.m3u8"));
  assert.ok(later.every(({ cookie }) => /forebay=[0-9a-f]{16}/.test(cookie)), "the player brings the door's cookie back");
});

/** Records a moving picture as fragmented MP4, with a key frame in each fragment. Runs in the page. */
async function record(milliseconds) {
  const candidates = ["avc1.42E01E", "vp09.00.10.08", "av01.0.01M.08"];
  const type = (codec) => `video/mp4;codecs=${codec}`;
  const codec = candidates.find((name) => MediaRecorder.isTypeSupported(type(name)) && MediaSource.isTypeSupported(type(name)));
  if (!codec) throw new Error("this browser records no MP4");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [320, 240];
  const context = canvas.getContext("2d");
  let frame = 0;
  const painting = setInterval(() => {
    context.fillStyle = `hsl(${(frame += 7) % 360} 80% 50%)`;
    context.fillRect(0, 0, 320, 240);
  }, 40);
  const options = { mimeType: type(codec), videoBitsPerSecond: 500_000, videoKeyFrameIntervalDuration: 500 };
  const recorder = new MediaRecorder(canvas.captureStream(25), options);
  const pieces = [];
  recorder.ondataavailable = ({ data }) => pieces.push(data);
  const stopped = new Promise((resolve) => (recorder.onstop = resolve));
  recorder.start(500);
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  recorder.stop();
  await stopped;
  clearInterval(painting);
  const bytes = new Uint8Array(await new Blob(pieces).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { base64: btoa(text), codecs: codec };
}

/** Plays with hls.js. Runs in the page. */
function play(source) {
  const video = document.getElementById("video");
  const player = new Hls({ enableWorker: false });
  window.trouble = [];
  player.on(Hls.Events.ERROR, (_, { type, details, fatal }) => window.trouble.push({ type, details, fatal }));
  player.loadSource(source);
  player.attachMedia(video);
  return video.play().catch((error) => window.trouble.push({ type: "play", details: error.message }));
}

/** What the player shows. Runs in the page. */
function look() {
  const video = document.getElementById("video");
  const frames = video.getVideoPlaybackQuality().totalVideoFrames;
  return { time: video.currentTime, width: video.videoWidth, frames, trouble: window.trouble };
}
