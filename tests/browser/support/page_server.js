// Serves the test page and the SDK's own ES modules, unbundled, from another origin than the door's.

import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const SDK = join(HERE, "node_modules/@antmedia/webrtc_adaptor/dist/es");
const TYPES = { ".html": "text/html", ".js": "text/javascript" };

/** Listens on a port that the system chose; resolves with `{ url, close }`. */
export async function servePages() {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://page");
    const file = pathname.startsWith("/sdk/") ? join(SDK, inside(pathname.slice(5))) : join(HERE, "pages", inside(pathname));
    try {
      const body = await readFile(file);
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const close = () =>
    new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    });
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}

/** A path that cannot climb out of its directory. */
function inside(path) {
  return normalize(`/${path}`);
}
