// A node that is built on libwebrtc, as AMS is: a page of the browser plays AMS's part of `play` behind the door, and
// another page watches it by WHEP. Both offer.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { WebSocketServer } from "ws";
import { startChromium } from "./support/chromium.js";
import { servePages } from "./support/page_server.js";
import { RED } from "./support/stage.js";
import { until, within } from "./support/until.js";

const BINARY = process.env.FOREBAY_BIN ?? fileURLToPath(new URL("../../target/debug/forebay", import.meta.url));
const COLOUR_TOLERANCE = 60;

let [chromium, pages, node, door] = [];
before(async () => {
  [chromium, pages] = [await startChromium(), await servePages()];
  node = await startNode();
  door = await startDoor(node.port);
});
after(async () => {
  await door?.close();
  await chromium?.close();
  await pages?.close();
  await node?.close();
});

for (const codec of ["video/VP8", "video/H264"]) {
  test(`a WHEP viewer watches ${codec} of a libwebrtc node, each in its own numbers`, async () => {
    const [inside, outside] = [await open(), await open()];
    node.page = inside;
    await inside.evaluate((mimeType, colour) => window.node.start(mimeType, colour), codec, RED);
    const call = (method, ...given) => outside.evaluate((called, rest) => window.whip[called](...rest), method, given);
    // The viewer's sections stand in another order than the node's.
    await call("viewer", "reader", `${door.url}/LiveApp/whep/any`, ["audio", "video"]);
    const { status, answer, offer } = await call("begin", "reader");
    assert.equal(status, 201, answer);
    const [, number] = /^m=video 9 \S+ (\d+)/m.exec(answer);
    assert.ok(offer.includes(`a=rtpmap:${number} ${codec.slice(6)}/90000`));
    const seen = async () => {
      const { rgb } = await call("picture", "reader");
      const { framesDecoded, audioPackets } = await call("stats", "reader");
      if (rgb.every((channel, i) => Math.abs(channel - RED[i]) <= COLOUR_TOLERANCE) && framesDecoded > 40 && audioPackets > 40) return true;
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

async function open() {
  const page = await chromium.browser.newPage();
  page.on("pageerror", (error) => console.error(error));
  await page.exposeFunction("say", (message) => node.say(message));
  await page.goto(`${pages.url}/whip.html`, { waitUntil: "load" });
  await page.addScriptTag({ url: `${pages.url}/node.js`, type: "module" });
  await page.waitForFunction("window.whip !== undefined && window.node !== undefined");
  return page;
}

/** AMS's port: probes are answered, and the words of a session pass to the page that plays the node. */
async function startNode() {
  const server = createServer((_, response) => response.writeHead(200).end("ok"));
  const sockets = new WebSocketServer({ server });
  let socket;
  const self = {
    page: undefined,
    say: (message) => socket?.send(message),
    close: () => new Promise((resolve) => {
      for (const client of sockets.clients) client.terminate();
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
  sockets.on("connection", (connection) => {
    socket = connection;
    connection.on("message", (text) => {
      const message = JSON.parse(text);
      if (message.command === "ping") connection.send('{"command":"pong"}');
      else self.page?.evaluate((heard) => window.node.hear(heard), message).catch(() => {});
    });
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  self.port = server.address().port;
  return self;
}

/** `forebay serve` in front of that one node. */
async function startDoor(port) {
  const dir = await mkdtemp(join(tmpdir(), "forebay-door-"));
  const file = join(dir, "forebay.toml");
  await writeFile(file, `
[[listen]]
bind = "127.0.0.1:0"
[admin]
bind = "127.0.0.1:0"
[apps]
LiveApp = {}
[media]
bind = "127.0.0.1"
ports = [0]
node_ports = "1024-65535"
[nodes]
discover = false
[[nodes.static]]
name = "libwebrtc"
address = "127.0.0.1:${port}"
role = "both"
`);
  const child = spawn(BINARY, ["serve", "--config", file], { stdio: ["ignore", "pipe", "pipe"] });
  const ended = new Promise((resolve) => child.once("exit", resolve));
  const said = [];
  createInterface({ input: child.stderr }).on("line", (line) => said.push(line));
  const ready = new Promise((resolve) => createInterface({ input: child.stdout }).once("line", resolve));
  const failed = ended.then(() => Promise.reject(new Error(`the door ended\n${said.join("\n")}`)));
  const line = await within(20_000, "the door is ready", Promise.race([ready, failed]));
  failed.catch(() => {});
  const close = async () => {
    child.kill("SIGINT");
    await within(5_000, "the door ended", ended).finally(() => child.kill("SIGKILL"));
    await rm(dir, { recursive: true, force: true });
  };
  return { url: /http=(\S+)/.exec(line)[1], log: () => said.join("\n"), close };
}
