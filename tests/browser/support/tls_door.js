// A door that speaks TLS, `forebay serve`, in front of the nodes of a demo.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { selfSigned } from "./certificate.js";
import { Demo } from "./demo.js";

/** What a stage takes for its demo: the door with TLS; what it says and its end are those of both processes. */
export class TlsDoor {
  /** Starts both and resolves when the door is ready. */
  static async start() {
    const door = new TlsDoor();
    door.cluster = await Demo.start();
    try {
      door.directory = await mkdtemp(join(tmpdir(), "forebay-tls-"));
      door.door = await Demo.serve(await door.#configuration());
      return door;
    } catch (error) {
      await door.stop().catch(() => {});
      throw error;
    }
  }

  async #configuration() {
    const { cert, key } = selfSigned();
    const [certFile, keyFile, file] = ["door.pem", "door.key", "forebay.toml"].map((name) => join(this.directory, name));
    await writeFile(certFile, cert);
    await writeFile(keyFile, key);
    const { nodes } = await (await fetch(`${this.cluster.admin}/v1/nodes`)).json();
    const statics = nodes.map(
      ({ id, address, role }) => `[[nodes.static]]\nname = "${id}"\naddress = "${address}"\nrole = "${role}"\n`,
    );
    await writeFile(
      file,
      `[[listen]]
bind = "127.0.0.1:0"
tls = true
[tls]
certificates = [{ cert = "${certFile}", key = "${keyFile}" }]
[admin]
bind = "127.0.0.1:0"
[apps]
LiveApp = {}
[media]
bind = "127.0.0.1"
ports = [0]
[nodes]
slow_start = "0s"
[shutdown]
lame_duck = "0s"
deadline = "1s"
${statics.join("")}`,
    );
    return file;
  }

  /** Where the door listens, `https://IP:PORT`. */
  get http() {
    return this.door.http;
  }

  /** Where its admin API listens, `http://IP:PORT`. */
  get admin() {
    return this.door.admin;
  }

  webSocket(app) {
    return this.door.webSocket(app);
  }

  log() {
    return [this.cluster, this.door].map((demo) => demo?.log()).join("\n");
  }

  /** Ends both, and rejects unless both do so cleanly. */
  async stop() {
    const ends = await Promise.allSettled([this.door?.stop(), this.cluster.stop()]);
    if (this.directory) await rm(this.directory, { recursive: true, force: true });
    const refused = ends.find(({ status }) => status === "rejected");
    if (refused) throw refused.reason;
  }
}
