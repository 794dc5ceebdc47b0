// The page: a publisher and a viewer, with what happens in plain words.
import { Ams } from "./ams.js";

const APP = "LiveApp";
const MEASURE_EVERY = 1000;

const link = document.getElementById("link");
const scheme = location.protocol === "https:" ? "wss" : "ws";

// Each half has a connection of its own: a `stop` names only a stream, and one window may publish and watch the same.
const links = {};
const connect = (half) => new Ams(`${scheme}://${location.host}/${APP}/websocket`, (state, text) => {
  links[half] = { state, text };
  const worst = ["wait", "good", "idle"].map((rank) => Object.values(links).find((it) => it.state === rank)).find(Boolean);
  link.dataset.state = worst.state;
  link.querySelector("span").textContent = worst.text;
});

/** What both halves of the page share: a form, a screen, a state and some figures. */
class Half {
  constructor(id) {
    this.root = document.getElementById(id);
    this.ams = connect(id);
    this.form = this.root.querySelector("form");
    this.button = this.form.querySelector("button");
    this.video = this.root.querySelector("video");
    this.screen = this.root.querySelector(".screen");
    this.label = this.button.textContent;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.leg || this.starting) this.stop(); else this.start(this.form.stream.value.trim());
    });
  }

  state(state, text) {
    const line = this.root.querySelector(".state");
    line.dataset.state = state;
    line.textContent = text;
  }

  fact(name, text) {
    this.root.querySelector(`[data-fact="${name}"]`).textContent = text;
  }

  running(running) {
    this.button.textContent = running ? "Stop" : this.label;
    this.button.classList.toggle("on", running);
    this.form.stream.readOnly = running;
    clearInterval(this.timer);
    this.before = null;
    if (running) {
      this.begun = performance.now();
      this.first = null;
      this.fact("first", "–");
      this.timer = setInterval(() => this.measure(), MEASURE_EVERY);
    } else {
      for (const name of ["size", "fps", "rate"]) this.fact(name, "–");
      this.video.srcObject = null;
      this.screen.classList.remove("live");
    }
  }

  /** The first time that it works, says how long that took. */
  arrived() {
    if (this.first !== null) return;
    this.first = performance.now() - this.begun;
    this.fact("first", `${(this.first / 1000).toFixed(2)} s`);
  }

  async measure() {
    const pc = this.leg?.pc;
    if (!pc) return;
    const direction = this.id === "publish" ? "outbound-rtp" : "inbound-rtp";
    let bytes = 0, frames = 0, width = 0, height = 0;
    for (const report of (await pc.getStats()).values()) {
      if (report.type !== direction) continue;
      bytes += (report.bytesSent ?? report.bytesReceived) || 0;
      if (report.kind !== "video") continue;
      frames += (report.framesEncoded ?? report.framesDecoded) || 0;
      width = report.frameWidth || width;
      height = report.frameHeight || height;
    }
    const now = { pc, at: performance.now(), bytes, frames };
    if (width) this.fact("size", `${width} × ${height}`);
    if (this.before?.pc === pc) {
      const seconds = (now.at - this.before.at) / 1000;
      this.fact("fps", `${Math.round((frames - this.before.frames) / seconds)} /s`);
      this.fact("rate", rate(((bytes - this.before.bytes) * 8) / seconds));
    }
    this.before = now;
  }
}

const rate = (bits) => (bits >= 1e6 ? `${(bits / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bits / 1000)} kbit/s`);

class Publisher extends Half {
  id = "publish";

  constructor() {
    super("publish");
    this.say = this.root.querySelector(".say");
    this.say.addEventListener("submit", (event) => {
      event.preventDefault();
      this.leg?.word(this.say.word.value);
      this.say.word.value = "";
    });
  }

  async start(stream) {
    const run = (this.starting = Symbol(stream));
    this.running(true);
    let media;
    try {
      media = this.form.source.value === "camera" ? await camera() : testPicture(stream, this.form.tone.checked);
    } catch (error) {
      if (this.starting !== run) return;
      this.starting = null;
      this.running(false);
      return this.state("bad", cameraTrouble(error));
    }
    if (this.starting !== run) return media.end();
    this.starting = null;
    this.media = media;
    this.video.srcObject = media.stream;
    this.screen.classList.add("live");
    this.leg = this.ams.publish(stream, media.stream, {
      state: (state, text) => {
        this.state(state, text);
        this.say.hidden = state !== "good";
        if (state === "bad") this.end();
      },
      up: () => {
        this.arrived();
        watcher.suggest(stream);
      },
    });
  }

  stop() {
    this.starting = null;
    const leg = this.leg;
    this.end();
    if (leg) leg.stop(); else this.state("idle", "Nothing is published.");
  }

  end() {
    this.leg = null;
    this.media?.end();
    this.media = null;
    this.say.hidden = true;
    this.running(false);
  }
}

class Watcher extends Half {
  id = "watch";

  constructor() {
    super("watch");
    this.sound = this.root.querySelector(".sound");
    this.sound.addEventListener("click", () => {
      this.video.muted = !this.video.muted;
      this.sound.textContent = this.video.muted ? "Sound on" : "Sound off";
    });
    this.form.stream.addEventListener("input", () => this.share());
  }

  start(stream) {
    this.share();
    this.running(true);
    this.leg = this.ams.play(stream, {
      state: (state, text) => {
        this.state(state, text);
        if (state === "bad") { this.leg = null; this.running(false); }
      },
      media: (media) => {
        if (this.video.srcObject === media) return;
        this.video.srcObject = media;
        this.video.play().catch(() => {});
        this.screen.classList.add("live");
        this.sound.hidden = media.getAudioTracks().length === 0;
        media.onaddtrack = () => { this.sound.hidden = media.getAudioTracks().length === 0; };
        this.awaitFrame();
      },
      word: (text) => {
        const word = this.root.querySelector(".word");
        word.textContent = `“${text}”`;
        word.hidden = false;
      },
    });
  }

  awaitFrame() {
    const seen = () => this.arrived();
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(seen);
    else this.video.addEventListener("loadeddata", seen, { once: true });
  }

  stop() {
    const leg = this.leg;
    this.leg = null;
    this.sound.hidden = true;
    this.root.querySelector(".word").hidden = true;
    this.running(false);
    leg?.stop();
  }

  /** Offers a stream for watching, unless another one is being watched. */
  suggest(stream) {
    if (!this.leg) this.form.stream.value = stream;
    this.share();
  }

  share() {
    const stream = this.form.stream.value.trim();
    document.getElementById("share").href = stream ? `?watch=${encodeURIComponent(stream)}` : "?";
  }
}

async function camera() {
  if (!navigator.mediaDevices) throw new DOMException("", "InsecureContext");
  const wanted = { video: { width: { ideal: 1280 }, height: { ideal: 720 } }, audio: true };
  const stream = await navigator.mediaDevices.getUserMedia(wanted);
  return { stream, end: () => stream.getTracks().forEach((track) => track.stop()) };
}

function cameraTrouble(error) {
  switch (error.name) {
    case "InsecureContext": return "Browsers allow cameras only over https or on localhost. The test picture works everywhere.";
    case "NotAllowedError": return "The camera was not allowed. Allow it in the address bar, or publish the test picture.";
    case "NotFoundError": return "No camera or microphone was found. The test picture needs none.";
    case "NotReadableError": return "Another program uses the camera.";
    default: return `The camera could not be opened (${error.name}).`;
  }
}

/** A moving picture with the stream's name in the stream's own colour, and a tone if wanted. */
function testPicture(name, tone) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1280, height: 720 });
  const ink = canvas.getContext("2d");
  const hue = [...name].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) % 360, 7);
  const begun = performance.now();
  const draw = () => paint(ink, name, hue, (performance.now() - begun) / 1000);
  draw();
  const timer = setInterval(draw, 1000 / 30);
  const stream = canvas.captureStream(30);
  let audio = null;
  if (tone) {
    audio = new AudioContext();
    const [oscillator, gain, out] = [audio.createOscillator(), audio.createGain(), audio.createMediaStreamDestination()];
    oscillator.frequency.value = 220 + hue;
    gain.gain.value = 0.08;
    oscillator.connect(gain).connect(out);
    oscillator.start();
    stream.addTrack(out.stream.getAudioTracks()[0]);
  }
  return {
    stream,
    end: () => {
      clearInterval(timer);
      audio?.close();
      stream.getTracks().forEach((track) => track.stop());
    },
  };
}

function paint(ink, name, hue, time) {
  const { width, height } = ink.canvas;
  ink.fillStyle = `hsl(${hue} 70% 38%)`;
  ink.fillRect(0, 0, width, height);
  for (let wave = 0; wave < 5; wave++) {
    ink.fillStyle = `hsl(${hue} 75% ${46 + wave * 6}% / .55)`;
    ink.beginPath();
    ink.moveTo(0, height);
    for (let x = 0; x <= width; x += 32) {
      const y = height * (0.45 + wave * 0.11) + Math.sin(x / 170 + time * (1.1 + wave * 0.35) + wave) * 38;
      ink.lineTo(x, y);
    }
    ink.lineTo(width, height);
    ink.fill();
  }
  const x = width / 2 + Math.cos(time * 1.3) * width * 0.36;
  const y = height * 0.32 + Math.sin(time * 2.1) * height * 0.16;
  ink.fillStyle = "white";
  ink.beginPath();
  ink.arc(x, y, 34, 0, Math.PI * 2);
  ink.fill();
  ink.textAlign = "center";
  ink.font = "700 92px system-ui, sans-serif";
  ink.fillText(name, width / 2, height * 0.62, width * 0.9);
  ink.font = "500 46px ui-monospace, monospace";
  ink.fillText(new Date().toISOString().slice(11, 23), width / 2, height * 0.75);
}

function randomName() {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const colours = ["amber", "blue", "coral", "green", "ivory", "jade", "plum", "ruby", "teal", "violet"];
  const animals = ["crane", "dipper", "heron", "otter", "salmon", "swan", "trout", "vole", "wren", "newt"];
  return `${pick(colours)}-${pick(animals)}-${Math.floor(Math.random() * 90 + 10)}`;
}

const watcher = new Watcher();
const publisher = new Publisher();
const asked = new URLSearchParams(location.search);
publisher.form.stream.value = asked.get("publish") || randomName();
watcher.form.stream.value = asked.get("watch") || publisher.form.stream.value;
watcher.share();
if (asked.has("watch") && watcher.form.checkValidity()) watcher.start(watcher.form.stream.value);
if (asked.has("publish") && publisher.form.checkValidity()) publisher.start(publisher.form.stream.value);
