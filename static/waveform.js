/**
 * Draws the loudness of one voice over time on a canvas, with the part that was played in a stronger
 * colour. The peaks of each column are found once for a width, so drawing at every frame is cheap.
 */

const BAR = 2; // CSS pixels
const GAP = 1;

export class Lane {
  #canvas;
  #context;
  #peaks = [];
  #fullScale = 255;
  #columns = [];
  #width = 0;
  #height = 0;

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
  }

  /** Show these peaks, numbers from 0 to `fullScale` at equal distances in time. */
  show(peaks, fullScale) {
    this.#peaks = peaks;
    this.#fullScale = fullScale;
    this.resize();
  }

  /** Take the size that the style sheet gives the canvas now. */
  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.#width = this.#canvas.clientWidth;
    this.#height = this.#canvas.clientHeight;
    this.#canvas.width = Math.round(this.#width * ratio);
    this.#canvas.height = Math.round(this.#height * ratio);
    this.#context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const count = Math.max(Math.floor(this.#width / (BAR + GAP)), 1);
    this.#columns = Array.from({ length: count }, (_, column) => {
      const from = Math.floor((column * this.#peaks.length) / count);
      const to = Math.max(Math.floor(((column + 1) * this.#peaks.length) / count), from + 1);
      let loudest = 0;
      for (let at = from; at < to && at < this.#peaks.length; at += 1) {
        if (this.#peaks[at] > loudest) loudest = this.#peaks[at];
      }
      // Softened, since ears hear a tenth of the amplitude as half as loud.
      return Math.sqrt(Math.min(loudest / this.#fullScale, 1));
    });
  }

  /** Draw with `share` (0 to 1) played, in the colours of the style sheet. */
  draw(share) {
    const style = getComputedStyle(this.#canvas);
    const played = style.getPropertyValue("--played");
    const rest = style.getPropertyValue("--rest");
    const context = this.#context;
    const middle = this.#height / 2;
    const edge = share * this.#width;
    context.clearRect(0, 0, this.#width, this.#height);
    for (const [column, loud] of this.#columns.entries()) {
      const x = column * (BAR + GAP);
      const half = Math.max(loud * (middle - 1), 0.5);
      context.fillStyle = x < edge ? played : rest;
      context.fillRect(x, middle - half, BAR, half * 2);
    }
    context.fillStyle = style.getPropertyValue("--head");
    context.fillRect(Math.min(Math.max(edge - 1, 0), this.#width - 2), 0, 2, this.#height);
  }
}
