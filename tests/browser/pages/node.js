// Runs in the page: AMS's side of `play` and `publish`, over the browser's own WebRTC. To a player it offers, trickles, and
// takes the answer; a publisher's offer it answers.

import { HEIGHT, look, Picture, WIDTH } from "./picture.js";

let [pc, picture, mimeType, video] = [];

const say = (message) => window.say(JSON.stringify({ streamId: "any", ...message }));

window.node = {
  start(wanted, colour) {
    mimeType = wanted;
    picture = new Picture(colour);
  },
  async hear(message) {
    if (message.command === "play") await offer();
    if (message.command === "publish") say({ command: "start" });
    if (message.command === "takeConfiguration" && message.type === "offer") await answer(message.sdp);
    if (message.command === "takeConfiguration" && message.type === "answer") await pc.setRemoteDescription(message);
    if (message.command === "takeCandidate" && message.candidate) {
      await pc.addIceCandidate({ candidate: message.candidate, sdpMLineIndex: message.label });
    }
    if (message.command === "stop") {
      pc.close();
      say({ command: "notification", definition: video ? "publish_finished" : "play_finished" });
      video?.remove();
      video = undefined;
    }
  },
  /** The colour that a publisher's picture has here. */
  seen: () => look(video).rgb,
  /** The payload types of the video: the one that was offered, and the one that is sent. */
  async numbers() {
    const stats = await pc.getStats();
    const sent = [...stats.values()].find((one) => one.type === "outbound-rtp" && one.kind === "video");
    const offered = Number(/^m=video \d+ \S+ (\d+)/m.exec(pc.localDescription.sdp)[1]);
    return { video: { offered, used: stats.get(sent.codecId).payloadType } };
  },
};

/** A new connection, which says that it is up as AMS does. */
function connect(started) {
  pc = new RTCPeerConnection();
  pc.addEventListener("icecandidate", ({ candidate }) => {
    if (candidate) say({ command: "takeCandidate", label: candidate.sdpMLineIndex, id: candidate.sdpMid, candidate: candidate.candidate });
  });
  const own = pc;
  own.addEventListener("connectionstatechange", () => {
    if (own.connectionState === "connected") say({ command: "notification", definition: started });
  });
}

async function answer(sdp) {
  connect("publish_started");
  video = Object.assign(document.createElement("video"), { muted: true, autoplay: true, playsInline: true, width: WIDTH, height: HEIGHT });
  document.body.append(video);
  pc.addEventListener("track", ({ streams }) => void (video && (video.srcObject = streams[0])));
  await pc.setRemoteDescription({ type: "offer", sdp });
  await pc.setLocalDescription();
  say({ command: "takeConfiguration", type: "answer", sdp: pc.localDescription.sdp });
}

async function offer() {
  connect("play_started");
  for (const kind of ["video", "audio"]) {
    const [track] = kind === "video" ? picture.stream.getVideoTracks() : picture.stream.getAudioTracks();
    const transceiver = pc.addTransceiver(track, { direction: "sendonly", streams: [picture.stream] });
    if (kind === "video") {
      // Numbered as AMS numbers, by what it has: not as the viewer's browser does.
      const { codecs } = RTCRtpReceiver.getCapabilities("video");
      transceiver.setCodecPreferences(codecs.filter((codec) => codec.mimeType === mimeType || codec.mimeType === "video/rtx"));
    }
  }
  pc.createDataChannel("any");
  const { sdp } = await pc.createOffer();
  const renumbered = renumber(sdp);
  await pc.setLocalDescription({ type: "offer", sdp: renumbered });
  say({ command: "takeConfiguration", type: "offer", sdp: renumbered, idMapping: { 0: "any" } });
}

/** The offer with video's payload types moved to where a browser has none. */
function renumber(sdp) {
  const begin = sdp.indexOf("m=video");
  const end = sdp.indexOf("\r\nm=", begin);
  const [first, ...lines] = sdp.slice(begin, end).split("\r\n");
  const [media, port, protocol, ...numbers] = first.split(" ");
  const moved = Object.fromEntries(numbers.map((number, at) => [number, String(64 - 1 - at)]));
  const body = lines.map((line) =>
    line
      .replace(/^a=(rtpmap|fmtp|rtcp-fb):(\d+) /, (_, name, number) => `a=${name}:${moved[number] ?? number} `)
      .replace(/apt=(\d+)/, (_, number) => `apt=${moved[number] ?? number}`),
  );
  const section = [[media, port, protocol, ...numbers.map((number) => moved[number])].join(" "), ...body].join("\r\n");
  return sdp.slice(0, begin) + section + sdp.slice(end);
}
