// The real AMS browser SDK in a real browser, through one address, to nodes that it never hears of.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { BLUE, GREEN, RED, Stage } from "./support/stage.js";
import { until } from "./support/until.js";

let stage;
before(async () => void (stage = await Stage.open()));
after(() => stage?.close());

test("two streams at once reach their own viewers, and each viewer sees the right one", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("red", RED);
    await clients.publisher("blue", BLUE);
    await Promise.all([clients.publish("red", "pair-red"), clients.publish("blue", "pair-blue")]);

    await Promise.all(["r1", "r2", "b1"].map((viewer) => clients.viewer(viewer)));
    await Promise.all([clients.play("r1", "pair-red"), clients.play("b1", "pair-blue"), clients.play("r2", "pair-red")]);

    await Promise.all([
      clients.shows("r1", "pair-red", RED),
      clients.shows("r2", "pair-red", RED),
      clients.shows("b1", "pair-blue", BLUE),
    ]);
  }));

test("a page that plays two streams over one WebSocket sees both, each in its place", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("green", GREEN);
    await clients.publisher("blue", BLUE);
    await Promise.all([clients.publish("green", "wall-green"), clients.publish("blue", "wall-blue")]);

    await clients.viewer("wall");
    await clients.play("wall", "wall-green");
    await clients.play("wall", "wall-blue");

    await Promise.all([clients.shows("wall", "wall-green", GREEN), clients.shows("wall", "wall-blue", BLUE)]);
  }));

test("two pages of a conference publish and play over one WebSocket each", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("ann", RED);
    await clients.publisher("bob", BLUE);
    await Promise.all([
      clients.publish("ann", "room1-ann", { mainTrack: "room1" }),
      clients.publish("bob", "room1-bob", { mainTrack: "room1" }),
    ]);

    await clients.play("ann", "room1-bob");
    await clients.play("bob", "room1-ann");

    await Promise.all([clients.shows("ann", "room1-bob", BLUE), clients.shows("bob", "room1-ann", RED)]);
  }));

test("a page that was only told where to ask is shown the way, also when its connection breaks", () =>
  stage.withClients(async (clients) => {
    const endpoint = `${stage.demo.http}/forebay/locate?app=LiveApp`;
    await clients.publisher("author", BLUE, { endpoint });
    await clients.viewer("reader", { endpoint });
    await clients.publish("author", "located");
    await clients.play("reader", "located");
    await clients.shows("reader", "located", BLUE);

    await clients.breakConnection("reader");
    await clients.saw("reader", "initialized", undefined, 2);
    await clients.keepsPlaying("reader", "located");
  }));

test("a viewer who comes too early is told so and plays by its own retry once the stream is there", () =>
  stage.withClients(async (clients) => {
    await clients.viewer("early");
    await clients.play("early", "later");
    await clients.saw("early", "error:no_stream_exist", "later");

    await clients.publisher("late", GREEN);
    await clients.publish("late", "later");

    await clients.shows("early", "later", GREEN);
  }));

test("a stream that was stopped can be published and played again under its name", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", RED);
    await clients.viewer("reader");
    await clients.publish("author", "twice");
    await clients.play("reader", "twice");
    await clients.shows("reader", "twice", RED);

    await clients.stop("reader", "twice");
    await clients.saw("reader", "play_finished", "twice");
    await clients.stop("author", "twice");
    await clients.saw("author", "publish_finished", "twice");
    await clients.paint("author", BLUE);
    await clients.publish("author", "twice");
    await clients.play("reader", "twice");

    await clients.shows("reader", "twice", BLUE);
  }));

test("a publisher whose connection breaks meets its own session again, and its viewer watches on", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", RED);
    await clients.viewer("reader");
    await clients.publish("author", "broken");
    await clients.play("reader", "broken");
    await clients.shows("reader", "broken", RED);

    await clients.breakConnection("author");
    await clients.saw("author", "session_restored", "broken");
    await clients.saw("author", "publish_started", "broken", 2);
    await clients.paint("author", BLUE);

    await clients.shows("reader", "broken", BLUE);
    assert.equal(await clients.count("reader", "closed"), 0, "the viewer lost its WebSocket");
  }));

test("a page without ICE servers of its own gets an answer to its question and plays", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", GREEN, { asksForIceServers: true });
    await clients.viewer("reader", { asksForIceServers: true });
    await clients.publish("author", "asked");
    await clients.play("reader", "asked");
    await clients.shows("reader", "asked", GREEN);

    const of = (direction, command) =>
      clients.wire.filter((frame) => frame.direction === direction && frame.message.command === command);
    assert.equal(of("sent", "getIceServerConfig").length, 2);
    assert.equal(of("received", "iceServerConfig").length, 2);
    assert.deepEqual(of("received", "error"), []);
  }));

test("what a publisher sends on the data channel reaches its viewer", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", RED);
    await clients.viewer("reader");
    await clients.publish("author", "chat");
    await clients.play("reader", "chat");
    await clients.saw("author", "data_channel_opened", "chat");
    await clients.saw("reader", "data_channel_opened", "chat");

    // What is said before the edge's own channel to the origin is open, nobody hears: say it until it arrives.
    await until("the viewer has the words", async () => {
      await clients.sendData("author", "chat", "hello, downstream");
      const events = await clients.events("reader");
      return events.some(({ event, detail }) => event === "data_received" && detail === "hello, downstream");
    }, { withinMs: 45_000 }); // SCTP asks again after 3, 9 and 21 s where a busy machine lost its first packets
  }));

test("a session stays up past its pings, each answered, while the stream plays", () =>
  stage.withClients(async (clients) => {
    await clients.publisher("author", BLUE);
    await clients.viewer("reader");
    await clients.publish("author", "steady");
    await clients.play("reader", "steady");
    await clients.shows("reader", "steady", BLUE);

    // The SDK pings every three seconds: four answers are more than ten seconds.
    await clients.saw("author", "pong", undefined, 4);
    await clients.saw("reader", "pong", undefined, 4);

    await clients.keepsPlaying("reader", "steady");
    for (const name of ["author", "reader"]) {
      assert.equal(await clients.count(name, "closed"), 0, `${name} lost its WebSocket`);
      assert.equal(await clients.count(name, "initialized"), 1, `${name} connected again`);
    }
    assert.equal(await clients.count("author", "reconnection_attempt_for_publisher"), 0);
    assert.equal(await clients.count("reader", "reconnection_attempt_for_player"), 0);
  }));
