/**
 * The sound of the review page: played, paused, moved about in. Knows the audio element alone.
 */

import { Refused } from "./recording.js";

export class Player {
  #audio;
  #tell;
  #length = 0;
  #url = null;

  /**
   * `tell` gets what has changed: {soundReady, length}, {playing} or {position}; `fail` gets a
   * Refused when the browser does not play.
   */
  constructor(audio, { tell, fail }) {
    this.#audio = audio;
    this.#tell = tell;
    this.fail = fail;
    audio.addEventListener("loadedmetadata", () => {
      if (Number.isFinite(audio.duration)) this.#length = audio.duration;
      tell({ soundReady: true, length: this.#length });
    });
    audio.addEventListener("play", () => {
      tell({ playing: true });
      requestAnimationFrame(() => this.#tick());
    });
    audio.addEventListener("pause", () => tell({ playing: false }));
    audio.addEventListener("ended", () => tell({ playing: false }));
    audio.addEventListener("seeked", () => this.#moved());
    audio.addEventListener("error", () => {
      if (this.#url) fail(new Refused("PLAYBACK", "The browser cannot play this sound."));
    });
  }

  get ready() {
    return this.#url !== null && this.#audio.readyState >= HTMLMediaElement.HAVE_METADATA;
  }

  get position() {
    return this.#audio.currentTime;
  }

  set rate(rate) {
    this.#audio.defaultPlaybackRate = this.#audio.playbackRate = rate;
  }

  /** Play this Blob from now on; `length` counts where the browser cannot tell, in seconds. */
  load(blob, length) {
    this.close();
    this.#length = length;
    this.#url = URL.createObjectURL(blob);
    this.#audio.src = this.#url;
  }

  close() {
    this.#audio.pause();
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
    this.#audio.removeAttribute("src");
  }

  seek(seconds) {
    if (!this.ready) return;
    this.#audio.currentTime = Math.min(Math.max(seconds, 0), this.#length);
    this.#moved();
  }

  move(seconds) {
    this.seek(this.position + seconds);
  }

  async toggle() {
    const audio = this.#audio;
    if (!this.ready) return;
    if (!audio.paused) {
      audio.pause();
      return;
    }
    if (audio.ended || audio.currentTime >= this.#length) audio.currentTime = 0;
    await this.play();
  }

  async play() {
    try {
      await this.#audio.play();
    } catch (error) {
      // A pause that comes before playing has begun is no failure.
      if (error.name !== "AbortError") {
        this.fail(new Refused("PLAYBACK", "The browser did not play the sound."));
      }
    }
  }

  #moved() {
    this.#tell({ position: this.position });
  }

  #tick() {
    this.#moved();
    if (!this.#audio.paused) requestAnimationFrame(() => this.#tick());
  }
}
