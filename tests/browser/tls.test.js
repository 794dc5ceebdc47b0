// The real SDK in a real browser over TLS: each WebSocket on a connection of its own, and all on one of HTTP/2.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BLUE, GREEN, Stage } from "./support/stage.js";
import { TlsDoor } from "./support/tls_door.js";
import { until } from "./support/until.js";

let stage;
before(async () => {
  stage = await Stage.open({ door: () => TlsDoor.start(), flags: ["--ignore-certificate-errors"] });
});
after(() => stage?.close());

test("a page publishes and plays over wss", () =>
  stage.withClients(async (clients) => {
    assert.match(stage.demo.webSocket(), /^wss:/);
    await clients.publisher("author", GREEN);
    await clients.publish("author", "over-tls");
    await clients.viewer("reader");
    await clients.play("reader", "over-tls");

    await clients.shows("reader", "over-tls", GREEN);
    assert.equal(await metric("forebay_connections_open"), 2, "a browser that knows of no HTTP/2 asks for HTTP/1.1");
  }));

test("a browser that has an HTTP/2 connection brings all its WebSockets over it", () =>
  stage.withClients(async (clients) => {
    await until("the sessions of the page before are over", async () => (await metric("forebay_sessions_open")) === 0);
    // With credentials, as WebSockets are: other requests have connections of their own.
    await clients.page.evaluate((url) => fetch(url, { mode: "no-cors", credentials: "include" }), `${stage.demo.http}/livez`);
    await clients.publisher("author", BLUE);
    await clients.publish("author", "over-http2");
    await clients.viewer("reader");
    await clients.play("reader", "over-http2");

    await clients.shows("reader", "over-http2", BLUE);
    assert.equal(await metric("forebay_sessions_open"), 2);
    assert.equal(await metric("forebay_connections_open"), 1);
  }));

/** One sample of the door's metrics. */
async function metric(name) {
  const text = await (await fetch(`${stage.demo.admin}/metrics`)).text();
  const line = text.split("\n").find((sample) => sample.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}
