// A cluster whose nodes are processes that a test may kill: a real mongod, `forebay demo-node`s, and a door in front.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { serve } from "./serve.js";
import { within } from "./until.js";

const BINARY = process.env.FOREBAY_BIN ?? fileURLToPath(new URL("../../../target/debug/forebay", import.meta.url));
const MONGOD =
  process.env.MONGOD_BIN ?? fileURLToPath(new URL("../../../.test-tools/mongod/fiftyone/db/bin/mongod", import.meta.url));
const NODES = [
  ["origin-1", "origin", "127.0.2.1"],
  ["origin-2", "origin", "127.0.2.2"],
  ["edge-1", "edge", "127.0.2.3"],
  ["edge-2", "edge", "127.0.2.4"],
];
const START_WITHIN_MS = 20_000;

/**
 * Two origins and two edges behind a door. It stands in for the demo of a `Stage`; `kill(node)` ends one at once, and
 * `freezeStore()` stops its mongod until `thawStore()`.
 */
export async function startCluster() {
  const directory = await mkdtemp(join(tmpdir(), "forebay-cluster-"));
  const running = [];
  const nodes = new Map();
  let door, mongod;
  const stop = async () => {
    await door?.stop().catch(() => {});
    await Promise.all(running.map(end));
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const [store, port] = [await freePort("127.0.0.1"), await freePort(NODES[0][2])];
    mongod = await startStore(directory, store);
    running.push(mongod);
    const mongo = `mongodb://127.0.0.1:${store}`;
    for (const [id, role, address] of NODES) {
      const child = spawn(BINARY, ["demo-node", "--role", role, "--bind", `${address}:${port}`, "--mongo", mongo, "--id", id], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      running.push(child);
      nodes.set(id, child);
      await said(child, () => true, `${id} is ready`);
    }
    const tables = NODES.map(([id, role, address]) => `[[nodes.static]]\nname = "${id}"\naddress = "${address}:${port}"\nrole = "${role}"\n`);
    door = await serve(`[mongo]\nuri = "${mongo}"\n[apps]\nLiveApp = {}\n[nodes]\ndiscover = false\n${tables.join("")}`);
  } catch (error) {
    await stop();
    throw error;
  }
  const webSocket = () => `${door.http.replace(/^http/, "ws")}/LiveApp/websocket`;
  return {
    ...door,
    webSocket,
    stop,
    kill: (id) => end(nodes.get(id)),
    freezeStore: () => mongod.kill("SIGSTOP"),
    thawStore: () => mongod.kill("SIGCONT"),
  };
}

async function startStore(directory, port) {
  const options = ["--bind_ip", "127.0.0.1", "--port", port, "--dbpath", directory, "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"];
  const child = spawn(MONGOD, options.map(String), { stdio: ["ignore", "pipe", "ignore"] });
  await said(child, (line) => line.includes("Waiting for connections"), "mongod is ready");
  child.stdout.resume();
  return child;
}

/** Resolves when a child has said a line that `isMeant`. */
async function said(child, isMeant, what) {
  const lines = createInterface({ input: child.stdout });
  const line = new Promise((resolve, reject) => {
    lines.on("line", (line) => isMeant(line) && resolve());
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`it ended with ${code}: ${what}`)));
  });
  await within(START_WITHIN_MS, what, line);
}

async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

async function freePort(address) {
  const server = createServer().listen(0, address);
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
