// A picture that can be told from another one after it has been encoded, sent and decoded; and a look at what arrived.

const FRAMES_PER_SECOND = 20;
export const WIDTH = 320;
export const HEIGHT = 240;

/** One plain colour with a mark at its edge that moves, so that no two frames are equal; and a tone. */
export class Picture {
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

/** The mean colour of the middle of what a video element shows, and how many frames it has shown. */
export function look(video) {
  if (!video?.videoWidth) return { rgb: [0, 0, 0], frames: 0 };
  const canvas = new OffscreenCanvas(1, 1);
  const context = canvas.getContext("2d");
  const { videoWidth: width, videoHeight: height } = video;
  context.drawImage(video, width / 4, height / 4, width / 2, height / 2, 0, 0, 1, 1);
  const rgb = [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  return { rgb, frames: video.getVideoPlaybackQuality().totalVideoFrames };
}
