// `forebay demo` as a child process: the door and its small cluster, on ports that the system chose.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { within } from "./until.js";

const DEFAULT_BINARY = fileURLToPath(new URL("../../../target/debug/forebay", import.meta.url));
const READY = /^ready http=(\S+) admin=(\S+) media=(\S+) pid=(\d+)$/;
const READY_WITHIN_MS = 20_000;
const END_WITHIN_MS = 5_000;
// What is kept of the log, to be shown when a test fails.
const LOG_LINES = 2_000;

export class Demo {
  #child;
  #ended;
  #log = [];

  /** Starts a demo and resolves when it has said that it is ready. */
  static async start(extraArguments = []) {
    const options = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media", "127.0.0.1:0"];
    return Demo.#run([...options, ...extraArguments]);
  }

  /** Starts a door by its configuration file, `forebay serve`, and resolves when it has said that it is ready. */
  static async serve(file) {
    return Demo.#run(["serve", "--config", file]);
  }

  static async #run(options) {
    const demo = new Demo(options);
    try {
      await demo.#ready();
      return demo;
    } catch (error) {
      demo.#child.kill("SIGKILL");
      throw new Error(`${error.message}\n${demo.log()}`);
    }
  }

  constructor(options) {
    const binary = process.env.FOREBAY_BIN ?? DEFAULT_BINARY;
    this.#child = spawn(binary, options, { stdio: ["ignore", "pipe", "pipe"] });
    this.#ended = new Promise((resolve) => {
      this.#child.once("error", (error) => resolve({ error }));
      this.#child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    createInterface({ input: this.#child.stderr }).on("line", (line) => {
      this.#log.push(line);
      if (this.#log.length > LOG_LINES) this.#log.shift();
    });
  }

  async #ready() {
    const lines = createInterface({ input: this.#child.stdout });
    const line = new Promise((resolve) => lines.once("line", resolve));
    const ended = this.#ended.then(({ error, code, signal }) => {
      throw error ?? new Error(`the demo ended before it was ready (code ${code}, signal ${signal})`);
    });
    const first = await within(READY_WITHIN_MS, "the demo is ready", Promise.race([line, ended]));
    const [, http, admin] = READY.exec(first) ?? [];
    if (!http) throw new Error(`not a ready line: ${first}`);
    /** Where the door listens, `http://IP:PORT` or `https://IP:PORT`. */
    this.http = http;
    /** Where its admin API listens, `http://IP:PORT`. */
    this.admin = admin;
  }

  /** The address that a page gives to the SDK. */
  webSocket(app = "LiveApp") {
    return `${this.http.replace(/^http/, "ws")}/${app}/websocket`;
  }

  /** The last lines of its log. */
  log() {
    return this.#log.join("\n");
  }

  /** Asks it to end, as a service manager does, and rejects unless it does so cleanly. */
  async stop() {
    this.#child.kill("SIGTERM");
    try {
      const { code, signal } = await within(END_WITHIN_MS, "the demo ended after SIGTERM", this.#ended);
      if (code !== 0) throw new Error(`the demo ended with code ${code}, signal ${signal}\n${this.log()}`);
    } finally {
      this.#child.kill("SIGKILL");
    }
  }
}
