// A small client of AMS's signalling: one WebSocket, any number of legs, each published or played.
//
// It comes back by itself, politely: after a lost socket or `server_will_stop` with a growing, jittered pause; after a
// refusal that may pass (no such stream yet, busy) every few seconds. A leg never gives up until it is stopped.

const PING_EVERY = 3000;
const PONG_LIMIT = 12000;
const LEG_LIMIT = 6000; // from the command to a connected leg
const ASK_AGAIN = 3000;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10000;

const jitter = (ms) => ms * (0.75 + Math.random() * 0.5);

export const WORDS = {
  no_stream_exist: "There is no such stream at the moment. Waiting for it…",
  highResourceUsage: "The servers are busy. Asking again in a moment…",
  streamIdInUse: "Somebody publishes under this name already. Asking again in a moment…",
  already_publishing: "This window publishes that stream already.",
  already_playing: "This window watches that stream already.",
  invalidStreamName: "A stream's name has letters, digits, “-”, “_” and “.” only.",
  noStreamNameSpecified: "The stream needs a name.",
  unauthorized_access: "You are not allowed to do that.",
  viewerLimitReached: "This stream has as many viewers as it may have.",
  publishTimeoutError: "No picture or sound reached the server: is UDP blocked on your network?",
  notSetRemoteDescription: "The server did not understand this browser's offer. Trying again…",
  not_initialized_yet: "The server is still starting. Asking again…",
  data_store_not_available: "The server cannot reach its records. Asking again…",
};
// What asking again cannot change.
const FINAL = new Set(["invalidStreamName", "noStreamNameSpecified", "unauthorized_access", "already_publishing", "already_playing"]);

/** One WebSocket with its legs. `onlink(state, text)` hears of the socket: "good", "wait" or "idle". */
export class Ams {
  constructor(url, onlink) {
    this.url = url;
    this.onlink = onlink;
    this.legs = new Map();
    this.pause = FIRST_PAUSE;
    this.iceServers = [];
  }

  publish(stream, media, on) { return this.#begin(new Leg(this, "publish", stream, media, on)); }
  play(stream, on) { return this.#begin(new Leg(this, "play", stream, null, on)); }

  #begin(leg) {
    const key = `${leg.kind} ${leg.stream}`;
    this.legs.get(key)?.stop();
    this.legs.set(key, leg);
    if (this.isOpen) leg.ask(); else this.#open();
    return leg;
  }

  drop(leg) {
    const key = `${leg.kind} ${leg.stream}`;
    if (this.legs.get(key) === leg) this.legs.delete(key);
    if (this.legs.size === 0) this.#close("idle", "not connected");
  }

  get isOpen() { return this.socket?.readyState === WebSocket.OPEN; }

  say(message) {
    if (this.isOpen) this.socket.send(JSON.stringify(message));
  }

  #open() {
    if (this.socket) return;
    clearTimeout(this.timer);
    this.onlink("wait", "connecting…");
    const socket = new WebSocket(this.url);
    this.socket = socket;
    socket.onopen = () => {
      this.pause = FIRST_PAUSE;
      this.heard = Date.now();
      this.onlink("good", "connected");
      this.say({ command: "getIceServerConfig" });
      this.pinger = setInterval(() => this.#ping(), PING_EVERY);
      for (const leg of this.legs.values()) leg.ask();
    };
    socket.onmessage = (event) => {
      this.heard = Date.now();
      let message;
      try { message = JSON.parse(event.data); } catch { return; }
      this.#take(message);
    };
    socket.onclose = () => { if (this.socket === socket) this.#lost(); };
  }

  #close(state, text) {
    const socket = this.socket;
    this.socket = null;
    clearInterval(this.pinger);
    clearTimeout(this.timer);
    if (socket) { socket.onclose = socket.onmessage = socket.onopen = null; socket.close(); }
    this.onlink(state, text);
  }

  #lost() {
    this.#close("wait", "connection lost, coming back…");
    if (this.legs.size === 0) return this.onlink("idle", "not connected");
    for (const leg of this.legs.values()) leg.lost();
    this.timer = setTimeout(() => this.#open(), jitter(this.pause));
    this.pause = Math.min(this.pause * 2, LONGEST_PAUSE);
  }

  #ping() {
    if (Date.now() - this.heard > PONG_LIMIT) return this.#lost();
    this.say({ command: "ping" });
  }

  #take(message) {
    if (message.command === "iceServerConfig") {
      const uri = message.stunServerUri || "";
      if (uri.startsWith("stun:")) this.iceServers = [{ urls: uri }];
      if (uri.startsWith("turn:")) this.iceServers = [{ urls: uri, username: message.turnServerUsername, credential: message.turnServerCredential }];
      return;
    }
    if (message.command === "notification" && message.definition === "server_will_stop") {
      // Everyone on that server hears this at once: spread the return.
      this.onlink("wait", "the server stops, moving to another one…");
      clearTimeout(this.timer);
      this.timer = setTimeout(() => {
        // A server holds on to a publisher that leaves without a word, and no other one would take it meanwhile.
        for (const leg of this.legs.values()) this.say({ command: "stop", streamId: leg.stream });
        this.#lost();
      }, Math.random() * 1500);
      return;
    }
    for (const leg of [...this.legs.values()]) {
      if (leg.stream === message.streamId) leg.take(message);
    }
  }
}

/** One published or played stream. `on.state(state, text)`, `on.media(stream)`, `on.up()`, `on.word(text)`. */
class Leg {
  constructor(ams, kind, stream, media, on) {
    Object.assign(this, { ams, kind, stream, media, on, early: [] });
  }

  /** Asks for the stream, from the beginning. */
  ask() {
    clearTimeout(this.timer);
    this.#forget();
    this.on.state("wait", this.kind === "publish" ? "Looking for a server…" : "Looking for the stream…");
    const names = { streamId: this.stream, token: "", subscriberId: "", subscriberCode: "", role: "" };
    this.ams.say(this.kind === "publish"
      ? { command: "publish", ...names, streamName: "", mainTrack: "", metaData: "",
          video: this.media.getVideoTracks().length > 0, audio: this.media.getAudioTracks().length > 0 }
      : { command: "play", ...names, room: "", trackList: [], viewerInfo: "", userPublishId: "" });
    this.timer = setTimeout(() => this.#again("That took too long. Trying again…", 500), LEG_LIMIT);
  }

  stop() {
    clearTimeout(this.timer);
    this.ams.say({ command: "stop", streamId: this.stream });
    this.#forget();
    this.over = true;
    this.ams.drop(this);
    this.on.state("idle", this.kind === "publish" ? "Nothing is published." : "Nothing is watched.");
  }

  /** The socket is gone; the leg waits for the next one. */
  lost() {
    clearTimeout(this.timer);
    this.#forget();
    this.on.state("wait", "Connection lost, coming back…");
  }

  /** Sends a word over the data channel. */
  word(text) {
    if (this.channel?.readyState === "open") this.channel.send(text);
  }

  async take(message) {
    try {
      switch (message.command) {
        case "start":
          if (this.kind === "publish") await this.#offer();
          break;
        case "takeConfiguration":
          if (message.type === "answer" && this.kind === "publish") await this.#describe(this.pc, message);
          if (message.type === "offer" && this.kind === "play") await this.#answer(message);
          break;
        case "takeCandidate":
          if (message.candidate) await this.#candidate({ candidate: message.candidate, sdpMLineIndex: message.label, sdpMid: message.id });
          break;
        case "notification": this.#notice(message.definition); break;
        case "error": this.#refused(message.definition); break;
      }
    } catch (error) {
      if (!this.over) this.#again(`The browser could not use what the server said (${error.message}). Trying again…`, ASK_AGAIN);
    }
  }

  #notice(definition) {
    if (definition === "publish_started") this.#up("On air.");
    if (definition === "play_started") this.#up("Playing.");
    if (definition === "session_restored") this.on.state("good", "Back on air.");
    if (definition === "publish_finished") this.#again("The server ended the stream. Publishing again…", ASK_AGAIN);
    if (definition === "play_finished") this.#again("The stream has ended. Waiting for it to come back…", ASK_AGAIN);
  }

  #refused(definition) {
    const words = WORDS[definition] || `The server refused: ${definition}.`;
    if (!FINAL.has(definition)) return this.#again(words, ASK_AGAIN);
    clearTimeout(this.timer);
    this.#forget();
    this.over = true;
    this.ams.drop(this);
    this.on.state("bad", words);
  }

  #up(text) {
    clearTimeout(this.timer);
    this.on.state("good", text);
    this.on.up?.();
  }

  #again(text, pause) {
    if (this.over) return;
    clearTimeout(this.timer);
    this.#forget();
    this.on.state("wait", text);
    this.ams.say({ command: "stop", streamId: this.stream });
    this.timer = setTimeout(() => this.ams.isOpen && this.ask(), jitter(pause));
  }

  #forget() {
    this.old?.close();
    this.pc?.close();
    this.old = this.pc = this.channel = null;
    this.early = [];
  }

  #connection() {
    const pc = new RTCPeerConnection({ iceServers: this.ams.iceServers });
    pc.onicecandidate = ({ candidate }) => {
      if (candidate && pc === this.pc) {
        this.ams.say({ command: "takeCandidate", streamId: this.stream, label: candidate.sdpMLineIndex, id: candidate.sdpMid, candidate: candidate.candidate });
      }
    };
    pc.onconnectionstatechange = () => {
      if (pc !== this.pc || this.over) return;
      if (pc.connectionState === "failed") this.#again("The media connection broke. Trying again…", 500);
    };
    pc.ondatachannel = ({ channel }) => this.#listen(channel);
    return pc;
  }

  #listen(channel) {
    this.channel = channel;
    channel.onmessage = ({ data }) => typeof data === "string" && this.on.word?.(data);
  }

  // A `start`, the first or a later one, is a new session at some node: it gets a connection of its own.
  async #offer() {
    const old = this.pc;
    const pc = this.#connection();
    this.pc = pc;
    this.early = [];
    for (const track of this.media.getTracks()) pc.addTrack(track, this.media);
    this.#listen(pc.createDataChannel(this.stream));
    await pc.setLocalDescription(await pc.createOffer());
    old?.close();
    if (pc === this.pc) this.ams.say({ command: "takeConfiguration", streamId: this.stream, type: "offer", sdp: pc.localDescription.sdp });
  }

  // A later offer with the same certificate is a renegotiation; with another one, the stream comes from another node now,
  // and the old connection shows its last frames until the new one has some.
  async #answer(message) {
    const same = this.pc && fingerprint(this.pc.remoteDescription?.sdp) === fingerprint(message.sdp);
    const pc = same ? this.pc : this.#connection();
    if (!same) {
      this.old?.close();
      this.old = this.pc;
      this.pc = pc;
      this.early = [];
      let stream = null;
      const show = () => {
        if (pc !== this.pc || !stream) return;
        this.on.media(stream);
        this.old?.close();
        this.old = null;
      };
      pc.ontrack = ({ streams }) => {
        stream = streams[0];
        if (!this.old) show();
      };
      pc.addEventListener("connectionstatechange", () => pc.connectionState === "connected" && show());
    }
    await this.#describe(pc, message);
    await pc.setLocalDescription(await pc.createAnswer());
    if (pc === this.pc) this.ams.say({ command: "takeConfiguration", streamId: this.stream, type: "answer", sdp: pc.localDescription.sdp });
  }

  async #describe(pc, { type, sdp }) {
    if (!pc) return;
    await pc.setRemoteDescription({ type, sdp });
    const early = this.early.splice(0);
    for (const candidate of early) await this.#candidate(candidate);
  }

  async #candidate(candidate) {
    if (!this.pc?.remoteDescription) { if (this.early.length < 100) this.early.push(candidate); return; }
    try { await this.pc.addIceCandidate(candidate); } catch { /* one that this browser cannot use; others will do */ }
  }
}

const fingerprint = (sdp) => /a=fingerprint:(.*)/.exec(sdp || "")?.[1].trim();
