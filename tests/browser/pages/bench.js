// Runs in the page: SDK clients by name, each with a picture of its own to publish and a video for each stream it plays.

import { WebRTCAdaptor } from "/sdk/webrtc_adaptor.js";

const FRAMES_PER_SECOND = 20;
const WIDTH = 320;
const HEIGHT = 240;
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

  /** The mean colour of the middle of what is on screen, and how many frames were shown. */
  look(stream) {
    const video = this.videos.get(stream);
    if (!video?.videoWidth) return { rgb: [0, 0, 0], frames: 0 };
    const canvas = new OffscreenCanvas(1, 1);
    const context = canvas.getContext("2d");
    const { videoWidth: width, videoHeight: height } = video;
    context.drawImage(video, width / 4, height / 4, width / 2, height / 2, 0, 0, 1, 1);
    const rgb = [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    return { rgb, frames: video.getVideoPlaybackQuality().totalVideoFrames };
  }
}

/** One plain colour with a mark at its edge that moves, so that no two frames are equal; and a tone. */
class Picture {
  #step = 0;

  constructor(colour) {
    this.colour = colour;
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: WIDTH, height: HEIGHT });
    this.context = canvas.getContext("2d");
    this.#paint();
    setInterval(() => this.#paint(), 1000 / FRAMES_PER_SECOND);
    this.stream = canvas.captureStream(FRAMES_PER_SECOND);
    const audio = new AudioContext();
    const speaker = audio.createMediaStreamDestination();
    const tone = audio.createOscillator();
    tone.connect(speaker);
    tone.start();
    this.stream.addTrack(speaker.stream.getAudioTracks()[0]);
  }

  #paint() {
    this.#step = (this.#step + 1) % WIDTH;
    this.context.fillStyle = `rgb(${this.colour})`;
    this.context.fillRect(0, 0, WIDTH, HEIGHT);
    this.context.fillStyle = "white";
    this.context.fillRect(this.#step, 0, 8, 8);
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
