// The dashboard at `/` of the admin listener, used as an operator would use it.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startCluster } from "./support/cluster.js";
import { BLUE, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

const PHONE = { width: 390, height: 844, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

let stage;
before(async () => void (stage = await Stage.open()));
after(() => stage?.close());

/**
 * Gives `body` the dashboard of a door (of the demo's, if none is named) in a page of its own; a script error, or a request
 * to another host, fails the test.
 */
async function withDashboard(body, { door = stage.demo, viewport, expected } = {}) {
  const page = await stage.chromium.browser.newPage();
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error" && !expected?.test(message.text())) trouble.push(message.text());
  });
  page.on("request", (request) => {
    const url = request.url();
    if (!url.startsWith(door.admin) && !url.startsWith("data:")) trouble.push(`asks ${url}`);
  });
  if (viewport) await page.setViewport(viewport);
  try {
    await page.goto(door.admin, { waitUntil: "load" });
    await page.waitForSelector("#nodes [data-key=edge-1]");
    await body(page);
    assert.deepEqual(trouble, []);
  } catch (error) {
    console.error([...trouble, door.log()].join("\n"));
    throw error;
  } finally {
    await page.close();
  }
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent);
const nodeState = (page, node) => text(page, `#nodes [data-key="${node}"] .state`);

test("an operator sees the nodes, a stream with its origin and edges, and what happened to a viewer", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("camera", RED);
    await clients.publish("camera", "cam-7");
    await clients.viewer("viewer");
    await clients.play("viewer", "cam-7");
    await clients.shows("viewer", "cam-7", RED);

    await withDashboard(async (page) => {
      assert.equal((await page.$$("#nodes .rows [role=row]")).length, 5);
      assert.match(await text(page, "#numbers"), /1publishes on all nodes/);
      const stream = await until("the stream is listed", () => text(page, '#streams [data-key="LiveApp/cam-7"]'));
      assert.match(stream, /origin-\d/);
      assert.match(stream, /edge-\d \(1\)/);

      await page.click('#streams [data-key="LiveApp/cam-7"] button');
      await until("its two sessions are shown", async () => (await page.$$("#sessions .rows [role=row]")).length === 2);
      const viewer = await page.$$eval("#sessions .rows [role=row]", (rows) => rows.find((row) => row.textContent.includes("play cam-7")).dataset.key);
      await page.click(`#sessions [data-key="${viewer}"] button`);
      await until("the story has the first media", () => page.$("#story [data-event=first_media]"));
      const story = await text(page, "#story .body");
      for (const part of ["command play cam-7", "placement play cam-7 on edge-", "offer play cam-7 from the node", "takes the leg"]) {
        assert.ok(story.includes(part), `${part} in ${story}`);
      }
      await page.keyboard.press("Escape");
      await until("the story is closed", async () => !(await page.$("#story[open]")));
    });
  }));

test("an operator drains a node by clicking and takes it back, and others hear of it live", () =>
  withDashboard(async (page) => {
    await until("the page hears of events", async () => (await text(page, "#live")) === "live");

    await page.click('[aria-label="Drain edge-2"]');
    await page.waitForSelector("#drain[open]");
    assert.equal(await text(page, "#drain-title"), "Drain edge-2");
    await page.click("#drain button[value=drain]");

    await until("edge-2 is drained", async () => (await nodeState(page, "edge-2")) === "drained");
    await until("the event is shown", async () => (await text(page, "#events ol")).includes("anyone: drain edge-2"));
    assert.equal(await page.$("#drain[open]"), null);

    await page.click('[aria-label="Take back edge-2"]');
    await until("edge-2 takes legs again", async () => /joining|serving/.test(await nodeState(page, "edge-2")));
  }));

test("a drain moves a viewer while the page shows its progress", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("camera", BLUE);
    await clients.publish("camera", "moved");
    await clients.viewer("viewer");
    await clients.play("viewer", "moved");
    await clients.shows("viewer", "moved", BLUE);

    await withDashboard(async (page) => {
      const stream = await until("the stream is listed", () => text(page, '#streams [data-key="LiveApp/moved"]'));
      const [edge] = /edge-\d/.exec(stream);
      await page.click(`[aria-label="Drain ${edge}"]`);
      await page.waitForSelector("#drain[open]");
      await page.click("#drain button[value=drain]");

      await until(`${edge} is drained`, async () => (await nodeState(page, edge)) === "drained");
      await until("the viewer is elsewhere", async () => {
        const [now] = /edge-\d/.exec(await text(page, '#streams [data-key="LiveApp/moved"]')) ?? [];
        return now && now !== edge;
      });
      await clients.shows("viewer", "moved", BLUE);
      assert.equal(await clients.count("viewer", "closed"), 0, "its socket stayed open");
      await page.click(`[aria-label="Take back ${edge}"]`);
      await until(`${edge} takes legs again`, async () => /joining|serving/.test(await nodeState(page, edge)));
    });
  }));

test("while MongoDB does not answer the page says since when, and what is as old as that", async () => {
  const cluster = await startCluster();
  try {
    await withDashboard(
      async (page) => {
        const notice = '[data-notice="store"]';
        await until("the page hears of events", async () => (await text(page, "#live")) === "live");
        assert.equal(await page.$(notice), null);

        cluster.freezeStore();
        await until("the page says so", () => page.$(notice));
        const said = await text(page, notice);
        assert.match(said, /^MongoDB does not answer since \d\d:\d\d:\d\d\./);
        for (const part of ["Records", "reported loads", "what other doors carry", "drains hold"]) {
          assert.ok(said.includes(part), `${part} in ${said}`);
        }
        await until("the event is shown", async () => (await text(page, "#events ol")).includes("the record store is away"));

        await page.click('[aria-label="Drain edge-2"]');
        await page.waitForSelector("#drain[open]");
        await page.click("#drain button[value=drain]");
        await until("edge-2 drains all the same", async () => (await nodeState(page, "edge-2")) === "draining");

        cluster.thawStore();
        await until("the notice is gone", async () => !(await page.$(notice)));
        await until("the event is shown", async () => (await text(page, "#events ol")).includes("the record store is up"));
        await until("edge-2 is drained", async () => (await nodeState(page, "edge-2")) === "drained");
      },
      { door: cluster },
    );
  } finally {
    await cluster.stop();
  }
});

test("what the API refuses is said where it was asked for", () =>
  withDashboard(
    async (page) => {
      await page.click('[aria-label="Drain origin-1"]');
      await page.waitForSelector("#drain[open]");
      await page.$eval("#drain [name=deadline]", (input) => void (input.value = "40 days"));
      await page.click("#drain button[value=drain]");
      await until("the problem is shown", async () => /more than 30 days/.test(await text(page, "#drain .trouble")));
      await page.click("#drain button[value=cancel]");
      assert.equal(await page.$("#drain[open]"), null);
    },
    { expected: /status of 400/ }, // the browser itself notes such an answer as an error
  ));

test("everything can be reached and used by keyboard, and has a name", () =>
  withDashboard(async (page) => {
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the nodes");
    const button = await page.$('[aria-label="Drain edge-3"]');
    await button.focus();
    await page.keyboard.press("Enter");
    await page.waitForSelector("#drain[open]");
    assert.ok(await page.evaluate(() => document.querySelector("#drain").contains(document.activeElement)), "focus is in the dialog");
    await page.keyboard.press("Escape");
    await until("the dialog is closed", async () => !(await page.$("#drain[open]")));
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Drain edge-3", "focus is back");

    const tree = await page.accessibility.snapshot({ interestingOnly: false });
    const nameless = [];
    const visit = (node) => {
      if (["button", "link", "textbox", "combobox", "checkbox", "spinbutton", "searchbox"].includes(node.role) && !node.name) nameless.push(node);
      node.children?.forEach(visit);
    };
    visit(tree);
    assert.deepEqual(nameless, []);
  }));

test("on a phone nothing is wider than the screen", () =>
  withDashboard(
    async (page) => {
      const width = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(width <= PHONE.width, `${width} px on a screen of ${PHONE.width}`);
      await page.tap('[aria-label="Drain edge-3"]');
      await page.waitForSelector("#drain[open]");
      const box = await (await page.$("#drain")).boundingBox();
      assert.ok(box.x >= 0 && box.x + box.width <= PHONE.width, JSON.stringify(box));
      await page.keyboard.press("Escape");
    },
    { viewport: PHONE },
  ));
