// Runs in the page: SDK clients by name, each with a picture of its own to publish and a video for each stream it plays.

import { WebRTCAdaptor } from "/sdk/webrtc_adaptor.js";
import { HEIGHT, look, Picture, WIDTH } from "./picture.js";

const clients = new Map();

class Client {
  events = [];
  videos = new Map();

  constructor({ url, endpoint, colour, isPlayMode = false, asksForIceServers = false }) {
    if (colour) {
      this.picture = new Picture(colour);
    }
    this.sdk = new WebRTCAdaptor({
      // An endpoint is asked for the address at every connection.
      ...(endpoint ? { httpEndpointUrl: endpoint } : { websocket_url: url }),
      isPlayMode,
      mediaConstraints: { video: true, audio: true },
      callback: (event, subject) => this.#note(event, subject),
      callbackError: (error, subject) => this.#note(`error:${error}`, subject),
      ...(this.picture && { localStream: this.picture.stream }),
      // Without this the SDK has its own servers first and asks the door for others.
      ...(!asksForIceServers && { peerconnection_config: { iceServers: [] } }),
    });
  }

  #note(event, subject) {
    const stream = typeof subject === "string" ? subject : subject?.streamId;
    const detail = event === "data_received" ? subject.data : subject?.state;
    this.events.push({ event, stream, detail });
    if (event === "newTrackAvailable") {
      this.#video(stream).srcObject = subject.stream;
    }
  }

  #video(stream) {
    if (!this.videos.has(stream)) {
      const video = document.createElement("video");
      Object.assign(video, { muted: true, autoplay: true, playsInline: true, width: WIDTH, height: HEIGHT });
      document.body.append(video);
      this.videos.set(stream, video);
    }
    return this.videos.get(stream);
  }

  look(stream) {
    return look(this.videos.get(stream));
  }
}

const named = (name) => {
  if (!clients.has(name)) throw new Error(`no client is called ${name}`);
  return clients.get(name);
};

window.bench = {
  connect: (name, options) => void clients.set(name, new Client(options)),
  publish: (name, stream, mainTrack) => named(name).sdk.publish(stream, undefined, "", "", "", mainTrack ?? ""),
  play: (name, stream) => named(name).sdk.play(stream),
  stop: (name, stream) => named(name).sdk.stop(stream),
  breakConnection: (name) => named(name).sdk.webSocketAdaptor.close(),
  sendData: (name, stream, text) => named(name).sdk.sendData(stream, text),
  paint: (name, colour) => void (named(name).picture.colour = colour),
  events: (name) => named(name).events,
  picture: (name, stream) => named(name).look(stream),
  async stats(name, stream) {
    const stats = await named(name).sdk.getStats(stream);
    return { framesDecoded: stats.framesDecoded, audioPackets: stats.audioPacketsReceived };
  },
};
