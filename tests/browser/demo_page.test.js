// The page that `forebay demo` shows at `/`, used as a new user would use it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Stage } from "./support/stage.js";
import { until } from "./support/until.js";

// How far two videos of one picture may differ per channel of a colour.
const COLOUR_TOLERANCE = 40;
const MORE_FRAMES = 20;

let stage;
before(async () => void (stage = await Stage.open()));
after(() => stage?.close());

test("a new user publishes the test picture with one click and watches it with another", () =>
  stage.withPages(async (open) => {
    const window = await open("/");
    await publish(window);

    await watch(window);

    await plays(window);
    await until("both halves show the same picture", async () => {
      const [sent, seen] = [await cornerColour(window, "publish"), await cornerColour(window, "watch")];
      if (sent.every((channel, i) => Math.abs(channel - seen[i]) <= COLOUR_TOLERANCE)) return true;
      throw new Error(`sent rgb(${sent}), seen rgb(${seen})`);
    });
  }));

test("the link to another window plays the stream there by itself", () =>
  stage.withPages(async (open) => {
    const window = await open("/");
    await publish(window);

    const link = await window.$eval("#share", (anchor) => anchor.getAttribute("href"));
    const other = await open(`/${link}`);

    await plays(other);
  }));

test("a viewer in the publisher's own window may stop watching while the stream goes on for others", () =>
  stage.withPages(async (open) => {
    const window = await open("/");
    await publish(window);
    await watch(window);
    await plays(window);
    const link = await window.$eval("#share", (anchor) => anchor.getAttribute("href"));

    await window.click("#watch form button");
    await state(window, "watch", "idle");

    const other = await open(`/${link}`);
    await plays(other);
    await window.bringToFront();
    await state(window, "publish", "good");
  }));

test("a word to the viewers arrives", () =>
  stage.withPages(async (open) => {
    const window = await open("/");
    await publish(window);
    await watch(window);
    await plays(window);

    await window.type("#publish [name=word]", "hello, downstream");
    await window.click("#publish .say button");

    await until("the word is shown", () => window.$eval("#watch .word", (word) => word.textContent.includes("hello, downstream")));
  }));

test("a camera can be published", () =>
  stage.withPages(async (open) => {
    const window = await open("/");
    await window.click("#publish [value=camera] + span");
    await publish(window);

    await watch(window);

    await plays(window);
  }));

test("a window that watches before anybody publishes plays once somebody does", () =>
  stage.withPages(async (open) => {
    const viewer = await open("/?watch=soon");
    await until("it says that it waits", () =>
      viewer.$eval("#watch .state", (line) => line.textContent.includes("no such stream")),
    );

    const publisher = await open("/?publish=soon");
    await state(publisher, "publish", "good");

    await viewer.bringToFront();
    await plays(viewer);
  }));

test("a window that already waits for a stream may publish it itself", () =>
  stage.withPages(async (open) => {
    const window = await open("/");
    await window.click("#watch form button");
    await until("it says that it waits", () =>
      window.$eval("#watch .state", (line) => line.textContent.includes("no such stream")),
    );

    await publish(window);

    await plays(window);
    await state(window, "publish", "good");
  }));

async function publish(window) {
  await window.click("#publish form button");
  await state(window, "publish", "good");
}

async function watch(window) {
  await window.click("#watch form button");
  await state(window, "watch", "good");
}

/** Resolves when a half of the page says that it is in this state. */
async function state(window, half, wanted) {
  await until(`the ${half} half is ${wanted}`, async () => {
    const [now, text] = await window.$eval(`#${half} .state`, (line) => [line.dataset.state, line.textContent]);
    if (now === wanted) return true;
    throw new Error(`${now}: ${text}`);
  });
}

/** Resolves when the watch half has shown another second of video. */
async function plays(window) {
  const frames = () => window.$eval("#watch video", (video) => video.getVideoPlaybackQuality().totalVideoFrames);
  await until("the first frames are there", async () => (await frames()) > 0);
  const first = await frames();
  await until(`${MORE_FRAMES} more frames than ${first}`, async () => (await frames()) >= first + MORE_FRAMES);
  assert.equal(await window.$eval("#watch video", (video) => video.paused), false);
}

/** The mean colour of the top left corner, where the test picture is plain. */
async function cornerColour(window, half) {
  return window.$eval(`#${half} video`, (video) => {
    const canvas = new OffscreenCanvas(1, 1);
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0, video.videoWidth / 20, video.videoHeight / 20, 0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  });
}
