// Runs in the page: WHIP and WHEP clients by name, made of nothing but what the browser has: RTCPeerConnection and fetch.

import { HEIGHT, look, Picture, WIDTH } from "./picture.js";

const clients = new Map();

class Client {
  states = [];

  constructor(endpoint, { token } = {}) {
    this.endpoint = endpoint;
    this.authorization = token && { authorization: `Bearer ${token}` };
    this.pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.pc.addEventListener("connectionstatechange", () => this.states.push(this.pc.connectionState));
  }

  /** What a publisher sends. */
  send(colour) {
    this.picture = new Picture(colour);
    for (const track of this.picture.stream.getTracks()) {
      this.pc.addTransceiver(track, { direction: "sendonly", streams: [this.picture.stream] });
    }
  }

  /** What a viewer wants; the kinds may come in any order, and more than there are. */
  receive(kinds) {
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, autoplay: true, playsInline: true, width: WIDTH, height: HEIGHT });
    this.video.srcObject = new MediaStream();
    document.body.append(this.video);
    this.pc.addEventListener("track", ({ track }) => this.video.srcObject.addTrack(track));
    for (const kind of kinds) this.pc.addTransceiver(kind, { direction: "recvonly" });
  }

  /** Limits a kind to one codec, by its MIME type and a part of its parameters. */
  prefer(kind, mimeType, parameters = "") {
    const { codecs } = RTCRtpReceiver.getCapabilities(kind);
    const isWanted = (codec) => codec.mimeType.toLowerCase() === mimeType.toLowerCase() && (codec.sdpFmtpLine ?? "").includes(parameters);
    const wanted = codecs.filter(isWanted);
    for (const transceiver of this.pc.getTransceivers()) {
      if (transceiver.receiver.track.kind === kind) transceiver.setCodecPreferences(wanted);
    }
  }

  async begin() {
    await this.pc.setLocalDescription();
    const { sdp } = this.pc.localDescription;
    const response = await fetch(this.endpoint, {
      method: "POST",
      headers: { "content-type": "application/sdp", ...this.authorization },
      body: sdp,
    });
    const answer = await response.text();
    const header = (name) => response.headers.get(name);
    const told = { status: response.status, location: header("location"), etag: header("etag"), link: header("link"), offer: sdp, answer };
    if (response.status === 201) {
      this.resource = new URL(told.location, this.endpoint).href;
      this.etag = told.etag;
      await this.pc.setRemoteDescription({ type: "answer", sdp: answer });
    }
    return told;
  }

  /** Sends a candidate that nobody needs, as a browser that trickles does. */
  async trickle(etag) {
    const [, ufrag] = /a=ice-ufrag:(\S+)/.exec(this.pc.localDescription.sdp);
    const [, pwd] = /a=ice-pwd:(\S+)/.exec(this.pc.localDescription.sdp);
    const body = `a=ice-ufrag:${ufrag}\r\na=ice-pwd:${pwd}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n` +
      "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\n";
    return this.#patch(body, etag ?? this.etag);
  }

  /** Restarts ICE, and resolves with the status of the PATCH. */
  async restart() {
    this.pc.restartIce();
    await this.pc.setLocalDescription();
    const offer = this.pc.localDescription.sdp;
    const body = offer.split("\r\n").filter((line) => /^a=ice-(ufrag|pwd):/.test(line)).slice(0, 2).join("\r\n") + "\r\n";
    const { status, text, etag } = await this.#patch(body, "*");
    if (status === 200) {
      const frag = Object.fromEntries([...text.matchAll(/^a=(ice-ufrag|ice-pwd):(\S+)/gm)].map(([, name, value]) => [name, value]));
      let answer = this.pc.remoteDescription.sdp;
      answer = answer.replace(/^a=candidate:.*\r\n/gm, "").replace(/^a=end-of-candidates\r\n/gm, "");
      answer = answer.replace(/^a=ice-ufrag:.*$/gm, `a=ice-ufrag:${frag["ice-ufrag"]}\r`.trimEnd());
      answer = answer.replace(/^a=ice-pwd:.*$/gm, `a=ice-pwd:${frag["ice-pwd"]}\r`.trimEnd());
      await this.pc.setRemoteDescription({ type: "answer", sdp: answer.replace(/\r?\n/g, "\r\n") });
      for (const [candidate] of text.matchAll(/candidate:.*/g)) {
        await this.pc.addIceCandidate({ candidate: candidate.trim(), sdpMLineIndex: 0 });
      }
    }
    return { status, ufrag: /a=ice-ufrag:(\S+)/.exec(text)?.[1], etag };
  }

  async #patch(body, etag) {
    const response = await fetch(this.resource, {
      method: "PATCH",
      headers: { "content-type": "application/trickle-ice-sdpfrag", ...(etag && { "if-match": etag }), ...this.authorization },
      body,
    });
    return { status: response.status, text: await response.text(), etag: response.headers.get("etag") };
  }

  async remove() {
    const { status } = await fetch(this.resource, { method: "DELETE", headers: { ...this.authorization } });
    return status;
  }

  async stats() {
    const inbound = { framesDecoded: 0, audioPackets: 0, codecs: [] };
    const all = await this.pc.getStats();
    for (const one of all.values()) {
      if (one.type === "inbound-rtp" && one.kind === "video") inbound.framesDecoded = one.framesDecoded;
      if (one.type === "inbound-rtp" && one.kind === "audio") inbound.audioPackets = one.packetsReceived;
      if (one.type === "inbound-rtp") inbound.codecs.push(all.get(one.codecId)?.mimeType, all.get(one.codecId)?.payloadType);
    }
    return inbound;
  }
}

const named = (name) => {
  if (!clients.has(name)) throw new Error(`no client is called ${name}`);
  return clients.get(name);
};

window.whip = {
  publisher(name, endpoint, colour, options) {
    const client = new Client(endpoint, options);
    client.send(colour);
    clients.set(name, client);
  },
  viewer(name, endpoint, kinds = ["audio", "video"], options) {
    const client = new Client(endpoint, options);
    client.receive(kinds);
    clients.set(name, client);
  },
  prefer: (name, ...codec) => named(name).prefer(...codec),
  begin: (name) => named(name).begin(),
  trickle: (name, etag) => named(name).trickle(etag),
  restart: (name) => named(name).restart(),
  remove: (name) => named(name).remove(),
  stats: (name) => named(name).stats(),
  states: (name) => named(name).states,
  picture: (name) => look(named(name).video),
};
