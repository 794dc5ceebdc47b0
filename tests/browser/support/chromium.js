// Debian's Chromium, headless, with a profile of its own that is gone afterwards.

import { mkdtemp, rm } from "node:fs/promises";
import { networkInterfaces, tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

const FLAGS = [
  "--no-sandbox", // tests run as root in containers
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required",
];
// Without it Chromium gathers no loopback candidate.
const LOOPBACK = "--allow-loopback-in-peer-connection";
const LAUNCHES = 3;
const LAUNCH_WITHIN_MS = 30_000;

/**
 * Starts a browser; resolves with puppeteer's browser and with `close`, which leaves nothing behind. `oneNetwork`: it has a
 * single way to the door, as most browsers have; a second one hides what becomes of the first.
 */
export async function startChromium(flags = [], { oneNetwork = false } = {}) {
  const others = Object.values(networkInterfaces()).flat().some(({ internal }) => !internal);
  const moreFlags = oneNetwork && others ? flags : [LOOPBACK, ...flags];
  // A browser that hangs at its start has tested nothing: it is started anew, with a new profile.
  for (let attempt = 1; attempt < LAUNCHES; attempt += 1) {
    try {
      return await launch(moreFlags);
    } catch (error) {
      console.log(`chromium did not start (${error.message}): again`);
    }
  }
  return launch(moreFlags);
}

async function launch(moreFlags) {
  const profile = await mkdtemp(join(tmpdir(), "forebay-chromium-"));
  const browser = await puppeteer.launch({
    executablePath: process.env.CHROMIUM_BIN ?? "/usr/bin/chromium",
    headless: true,
    args: [...FLAGS, ...moreFlags],
    userDataDir: profile,
    timeout: LAUNCH_WITHIN_MS,
  });
  const close = async () => {
    await browser.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 5 });
  };
  return { browser, close };
}
