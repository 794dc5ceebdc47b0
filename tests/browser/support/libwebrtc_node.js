// A node that is built on libwebrtc, as AMS is: its port answers probes and takes signalling, and a page of the browser
// plays the rest of it.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";

/** Listens on a port of its own; `page` is whose node it is, see [`openPage`]. One session at a time. */
export async function startNode() {
  const server = createServer((_, response) => response.writeHead(200).end("ok"));
  const sockets = new WebSocketServer({ server });
  let socket;
  const self = {
    page: undefined,
    say: (message) => socket?.send(message),
    close: () =>
      new Promise((resolve) => {
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

/** Opens a page that can play `node`. */
export async function openPage(browser, pages, node) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(error));
  await page.exposeFunction("say", (message) => node.say(message));
  await page.goto(`${pages.url}/whip.html`, { waitUntil: "load" });
  await page.addScriptTag({ url: `${pages.url}/node.js`, type: "module" });
  await page.waitForFunction("window.whip !== undefined && window.node !== undefined");
  return page;
}

/** The tables of a door in front of these nodes, by name, for [`serve`]. */
export function tables(nodes) {
  const fixed = Object.entries(nodes).map(
    ([name, { port }]) => `[[nodes.static]]\nname = "${name}"\naddress = "127.0.0.1:${port}"\nrole = "both"\n`,
  );
  return `node_ports = "1024-65535"\n[apps]\nLiveApp = {}\n[nodes]\ndiscover = false\nslow_start = "0s"\n${fixed.join("")}`;
}
