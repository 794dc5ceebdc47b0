// What every test needs: a demo, a browser and a page with SDK clients in it.

import assert from "node:assert/strict";
import { startChromium } from "./chromium.js";
import { Demo } from "./demo.js";
import { servePages } from "./page_server.js";
import { until } from "./until.js";

// How far a channel of a colour may be off after the video codec.
const COLOUR_TOLERANCE = 60;
// Frames that must come on top of the first sample: one second of the test picture.
const MORE_FRAMES = 20;

export const RED = [200, 30, 30];
export const GREEN = [30, 160, 30];
export const BLUE = [30, 30, 200];

/** Whether this is that colour, as far as the video codec leaves it. */
export const near = (rgb, colour) => rgb.every((channel, i) => Math.abs(channel - colour[i]) <= COLOUR_TOLERANCE);

/** A demo, a browser and a page server, shared by the tests of one file. */
export class Stage {
  /** `door` starts what stands in for the demo; `flags` are further ones for the browser, as is `oneNetwork`. */
  static async open({ door = () => Demo.start(), flags = [], oneNetwork = false } = {}) {
    const stage = new Stage();
    try {
      stage.demo = await door();
      stage.pages = await servePages();
      stage.chromium = await startChromium(flags, { oneNetwork });
      return stage;
    } catch (error) {
      await stage.close().catch(() => {});
      throw error;
    }
  }

  /** Closes all three, also when one of them refuses; rejects with the first refusal. */
  async close() {
    const parts = [this.chromium?.close(), this.pages?.close(), this.demo?.stop()];
    const refused = (await Promise.allSettled(parts)).find(({ status }) => status === "rejected");
    if (refused) throw refused.reason;
  }

  /** Opens a page of SDK clients for `test` and closes it afterwards. */
  async withClients(test) {
    await this.#withOpener(async (open) => {
      const { page, wire } = await open(`${this.pages.url}/sdk.html`);
      await page.waitForFunction("window.bench !== undefined");
      await test(new Clients(page, this.demo, wire));
    });
  }

  /** Gives `test` a way to open pages of the demo by path, and closes them afterwards. A script error fails the test. */
  async withPages(test) {
    await this.#withOpener(async (open, errors) => {
      await test(async (path) => (await open(`${this.demo.http}${path}`)).page);
      assert.deepEqual(errors, []);
    });
  }

  /** Runs `body` with what opens pages. When it fails, all that the pages and the demo said is printed. */
  async #withOpener(body) {
    const [opened, errors, said] = [[], [], []];
    const open = async (url) => {
      const page = await this.chromium.browser.newPage();
      const wire = await watchWebSockets(page);
      opened.push({ page, wire });
      page.on("pageerror", (error) => errors.push(error.message));
      page.on("console", (message) => said.push(`console: ${message.text()}`));
      await page.goto(url, { waitUntil: "load" });
      return { page, wire };
    };
    try {
      await body(open, errors);
    } catch (error) {
      const frames = opened.flatMap(({ wire }, page) => wire.map((frame) => `page ${page}: ${JSON.stringify(frame).slice(0, 300)}`));
      console.error([...errors, ...said, ...frames, this.demo.log()].join("\n"));
      throw error;
    } finally {
      for (const { page } of opened) await page.close();
    }
  }
}

/** The SDK clients of one page, by the names that a test gives them. */
class Clients {
  constructor(page, demo, wire) {
    this.page = page;
    this.demo = demo;
    /** Every WebSocket message of the page so far: `{ direction: "sent" | "received", message }`. */
    this.wire = wire;
  }

  /** Connects a client that has a picture of one colour (and a tone) to publish, and may play as well. */
  async publisher(name, colour, options = {}) {
    await this.#connect(name, { colour, ...options });
  }

  /** Connects a client that only plays. */
  async viewer(name, options = {}) {
    await this.#connect(name, { isPlayMode: true, ...options });
  }

  async #connect(name, options) {
    await this.#call("connect", name, { url: this.demo.webSocket(), ...options });
    await this.saw(name, "initialized");
  }

  /** Publishes and resolves when the server says that it has begun. */
  async publish(name, stream, { mainTrack } = {}) {
    const before = await this.count(name, "publish_started", stream);
    await this.#call("publish", name, stream, mainTrack);
    await this.saw(name, "publish_started", stream, before + 1);
  }

  async play(name, stream) {
    await this.#call("play", name, stream);
  }

  async stop(name, stream) {
    await this.#call("stop", name, stream);
  }

  /** Closes the WebSocket under a client's SDK, which then connects again by itself. */
  async breakConnection(name) {
    await this.#call("breakConnection", name);
    await this.saw(name, "closed");
  }

  async sendData(name, stream, text) {
    await this.#call("sendData", name, stream, text);
  }

  /** Paints the picture of a publisher in another colour. */
  async paint(name, colour) {
    await this.#call("paint", name, colour);
  }

  /** Resolves when the SDK has reported `event` (of `stream`) at least `times` times. */
  async saw(name, event, stream, times = 1) {
    const subject = stream ? `${event} of ${stream}` : event;
    await until(`${name} sees ${subject}, ${times} times`, async () => (await this.count(name, event, stream)) >= times);
  }

  /** How often the SDK of a client has reported an event or an error. */
  async count(name, event, stream) {
    const events = await this.events(name);
    return events.filter((seen) => seen.event === event && (!stream || seen.stream === stream)).length;
  }

  /** All that the SDK of a client has reported: `{ event, stream?, detail? }`, in order. */
  async events(name) {
    return this.#call("events", name);
  }

  /** The SDK's statistics of a client's stream. */
  async stats(name, stream) {
    return this.#call("stats", name, stream);
  }

  /** Resolves when `name` decodes ever more frames of `stream` and they show `colour`. */
  async shows(name, stream, colour) {
    const isRight = ({ rgb }) => near(rgb, colour);
    await until(`${name} shows ${stream} in rgb(${colour})`, async () => {
      const picture = await this.#call("picture", name, stream);
      if (isRight(picture)) return true;
      throw new Error(`rgb(${picture.rgb}), ${picture.frames} frames`);
    });
    await this.keepsPlaying(name, stream);
    const { rgb } = await this.#call("picture", name, stream);
    assert.ok(isRight({ rgb }), `${name} changed to rgb(${rgb}) while ${stream} was playing`);
  }

  /** Resolves when a client has decoded another second of video, and received sound on the way. */
  async keepsPlaying(name, stream) {
    const first = await this.stats(name, stream);
    await until(`${name} decodes ${MORE_FRAMES} more frames of ${stream} than ${first.framesDecoded}`, async () => {
      const now = await this.stats(name, stream);
      if (now.framesDecoded >= first.framesDecoded + MORE_FRAMES && now.audioPackets > first.audioPackets) return true;
      throw new Error(JSON.stringify(now));
    });
  }

  async #call(method, ...rest) {
    return this.page.evaluate((called, given) => window.bench[called](...given), method, rest);
  }
}

/** Records the text messages of all WebSockets of a page, as the browser saw them on the wire. */
async function watchWebSockets(page) {
  const frames = [];
  const devtools = await page.createCDPSession();
  const note = (direction) => ({ response }) => frames.push({ direction, message: JSON.parse(response.payloadData) });
  devtools.on("Network.webSocketFrameSent", note("sent"));
  devtools.on("Network.webSocketFrameReceived", note("received"));
  await devtools.send("Network.enable");
  return frames;
}
