// The real SDK in a real browser whose network lets no UDP through: media comes over the door's own TCP port.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { GREEN, Stage } from "./support/stage.js";

let stage;
before(async () => void (stage = await Stage.open()));
after(() => stage?.close());

test("a page without UDP publishes and plays through the door's TCP port", () =>
  stage.withClients(async (clients) => {
    await clients.page.evaluate(withoutUdp);
    await clients.publisher("author", GREEN);
    await clients.publish("author", "tcp-only");
    await clients.viewer("reader");
    await clients.play("reader", "tcp-only");

    await clients.shows("reader", "tcp-only", GREEN);
    // One for each, and one more for each further network of this machine that the browser tries.
    assert.ok((await metric("forebay_media_tcp_connections")) >= 2);
  }));

/** What a firewall does to the page's UDP, done to the candidates that it hears of. Runs in the page. */
function withoutUdp() {
  const isUdp = (candidate) => / udp /i.test(candidate);
  const { addIceCandidate, setRemoteDescription } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addIceCandidate = async function (candidate, ...rest) {
    if (!isUdp(candidate?.candidate ?? "")) await addIceCandidate.call(this, candidate, ...rest);
  };
  RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }, ...rest) {
    const lines = sdp.split("\r\n").filter((line) => !(line.startsWith("a=candidate:") && isUdp(line)));
    return setRemoteDescription.call(this, { type, sdp: lines.join("\r\n") }, ...rest);
  };
}

/** One sample of the door's metrics. */
async function metric(name) {
  const text = await (await fetch(`${stage.demo.admin}/metrics`)).text();
  const line = text.split("\n").find((sample) => sample.startsWith(`${name} `));
  return Number(line?.split(" ")[1]);
}
