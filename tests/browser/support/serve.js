// `forebay serve` as a child process, with a configuration that the test wrote.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { within } from "./until.js";

const DEFAULT_BINARY = fileURLToPath(new URL("../../../target/debug/forebay", import.meta.url));
const READY = /^ready http=(\S+) admin=(\S+)/;
const READY_WITHIN_MS = 20_000;
const END_WITHIN_MS = 5_000;

/**
 * Starts a door on free ports with more tables, such as its nodes. Resolves when it is ready with `http` and `admin`
 * (`http://IP:PORT`), `log()` and `stop()`.
 */
export async function serve(tables) {
  const directory = await mkdtemp(join(tmpdir(), "forebay-door-"));
  const file = join(directory, "forebay.toml");
  const own = '[[listen]]\nbind = "127.0.0.1:0"\n[admin]\nbind = "127.0.0.1:0"\n[media]\nbind = "127.0.0.1"\nports = [0]\n';
  await writeFile(file, `${own}${tables}`);
  const binary = process.env.FOREBAY_BIN ?? DEFAULT_BINARY;
  const child = spawn(binary, ["serve", "--config", file], { stdio: ["ignore", "pipe", "pipe"] });
  const lines = [];
  createInterface({ input: child.stderr }).on("line", (line) => lines.push(line));
  const log = () => lines.join("\n");
  const ended = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  const stop = async () => {
    child.kill("SIGINT");
    try {
      await within(END_WITHIN_MS, "the door ended after SIGINT", ended);
    } finally {
      child.kill("SIGKILL");
      await rm(directory, { recursive: true, force: true });
    }
  };
  try {
    const line = new Promise((resolve) => createInterface({ input: child.stdout }).once("line", resolve));
    const first = await within(READY_WITHIN_MS, "the door is ready", Promise.race([line, ended]));
    const [, http, admin] = READY.exec(first) ?? [];
    if (!http) throw new Error(`not a ready line: ${first}\n${log()}`);
    return { http, admin, log, stop };
  } catch (error) {
    await stop().catch(() => {});
    throw error;
  }
}
