// A node that serves one recording as HLS (fragmented MP4), as an AMS edge does, and the pages of the test.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";

const HLS_JS = fileURLToPath(new URL("../node_modules/hls.js/dist/hls.min.js", import.meta.url));
const PAGE = "<!doctype html><title>hls</title><video id=video muted playsinline></video><script src=js/hls.min.js></script>";

/** Listens on a free port; resolves with the node. */
export async function startHlsNode() {
  const node = new HlsNode();
  await node.listen();
  return node;
}

class HlsNode {
  /** What it was asked for: `{ path, range, forwardedFor, cookie }`. */
  asked = [];
  #files = new Map();
  #server = createServer((request, response) => this.#answer(request, response));

  async listen() {
    this.#files.set("/LiveApp/hls.html", { type: "text/html", body: Buffer.from(PAGE) });
    this.#files.set("/LiveApp/js/hls.min.js", { type: "text/javascript", body: await readFile(HLS_JS) });
    await new Promise((resolve, reject) => this.#server.once("error", reject).listen(0, "127.0.0.1", resolve));
    this.address = `127.0.0.1:${this.#server.address().port}`;
  }

  /** Cuts a fragmented MP4 at its fragments and serves it as `stream`, each segment in pieces. */
  publish(stream, mp4, codecs) {
    const { head, fragments } = cut(mp4);
    const put = (name, type, body) => this.#files.set(`/LiveApp/streams/${name}`, { type, body });
    put(`${stream}__init.mp4`, "video/mp4", head);
    const lines = ["#EXTM3U", "#EXT-X-VERSION:7", "#EXT-X-TARGETDURATION:2", "#EXT-X-PLAYLIST-TYPE:VOD"];
    lines.push(`#EXT-X-MAP:URI="${stream}__init.mp4"`);
    fragments.forEach((fragment, number) => {
      const name = `${stream}${String(number).padStart(9, "0")}.fmp4`;
      put(name, "video/mp4", fragment);
      lines.push("#EXTINF:1.0,", name);
    });
    lines.push("#EXT-X-ENDLIST", "");
    put(`${stream}.m3u8`, "application/vnd.apple.mpegurl", Buffer.from(lines.join("\n")));
    const main = ["#EXTM3U", `#EXT-X-STREAM-INF:BANDWIDTH=1000000,CODECS="${codecs}"`, `${stream}.m3u8`, ""];
    put(`${stream}_adaptive.m3u8`, "application/vnd.apple.mpegurl", Buffer.from(main.join("\n")));
    return fragments.length;
  }

  #answer(request, response) {
    const { pathname } = new URL(request.url, "http://node");
    const { headers } = request;
    this.asked.push({
      path: pathname,
      range: headers.range,
      forwardedFor: headers["x-forwarded-for"],
      cookie: headers.cookie,
    });
    const file = this.#files.get(pathname);
    if (!file) return void response.writeHead(404).end();
    // Without a length, so that it comes chunked.
    response.writeHead(200, { "content-type": file.type, "cache-control": "no-cache" });
    for (let at = 0; at < file.body.length; at += 8192) response.write(file.body.subarray(at, at + 8192));
    response.end();
  }

  async close() {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }
}

/** The boxes before the first `moof`, and each `moof` with what follows it. */
function cut(mp4) {
  const starts = [];
  let at = 0;
  while (at + 8 <= mp4.length) {
    const size = mp4.readUInt32BE(at);
    const type = mp4.toString("latin1", at + 4, at + 8);
    if (type === "moof") starts.push(at);
    if (type === "mfra" || size < 8) break;
    at += size;
  }
  if (starts.length === 0) throw new Error("the recording is not fragmented");
  const fragments = starts.map((start, nth) => mp4.subarray(start, starts[nth + 1] ?? at));
  return { head: mp4.subarray(0, starts[0]), fragments };
}
