/**
 * Notices that nothing arrives any more by a peer connection. No DOM.
 *
 * A browser takes 6 s and more to say so, and a signalling socket whose far end is gone without a
 * word may never say it. The server sends something every second, so silence tells.
 */

const LOOK_EVERY_MS = 500;
const SILENT_MS = 4_000; // as long as the server waits for a page
const DOUBTED_SILENT_MS = 2_000; // after a hint that the network is another
const DOUBTED_FOR_MS = 10_000;

export class Silence {
  #peer;
  #fallen;
  #timer = null;
  #bytes = -1;
  #heardAt = 0;
  #lookedAt = 0;
  #doubtedUntil = 0;

  /** `fallen(seconds)` is called once, when `peer` has received nothing for too long. */
  constructor(peer, fallen) {
    this.#peer = peer;
    this.#fallen = fallen;
  }

  start() {
    if (this.#timer !== null) return;
    this.#heardAt = this.#lookedAt = performance.now();
    this.#timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Wait less long for a while: the network may have changed. */
  doubt() {
    this.#doubtedUntil = performance.now() + DOUBTED_FOR_MS;
  }

  async #look() {
    const bytes = await received(this.#peer).catch(() => this.#bytes);
    if (this.#timer === null) return;
    const now = performance.now();
    const stoodStill = now - this.#lookedAt > 4 * LOOK_EVERY_MS;
    this.#lookedAt = now;
    if (stoodStill) this.doubt(); // a computer that slept often wakes in another network
    if (bytes !== this.#bytes || stoodStill) {
      this.#bytes = bytes;
      this.#heardAt = now;
      return;
    }
    const silent = now - this.#heardAt;
    if (silent < (now < this.#doubtedUntil ? DOUBTED_SILENT_MS : SILENT_MS)) return;
    this.stop();
    this.#fallen(silent / 1000);
  }
}

/** Bytes that came by any pair of addresses, checks of the path left out. */
async function received(peer) {
  let bytes = 0;
  for (const report of (await peer.getStats()).values()) {
    if (report.type === "candidate-pair") bytes += report.bytesReceived ?? 0;
  }
  return bytes;
}
