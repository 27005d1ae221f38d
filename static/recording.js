/**
 * Asks the server for one recording. No DOM: whoever shows it decides how.
 */

/** What a person can do next, by the server's code. */
const STEPS = {
  UNAUTHORIZED: "Enter the key that the server's operator set, then open the recording again.",
  SESSION_NOT_FOUND: "Check the interview's id.",
  INVALID_SESSION_ID: "Check the interview's id.",
  NOT_FOUND: "Check the interview's id.",
  RECORDING_ERASED: "It cannot be brought back.",
  RECORDING_DAMAGED: "The other files can still be used.",
  STORE_UNAVAILABLE: "Try again in a minute.",
  NETWORK: "Check that the server runs and that you are online, then try again.",
};

/** A request that did not succeed: {code, sentence, step}. */
export class Refused extends Error {
  constructor(code, sentence) {
    super(sentence);
    this.code = code;
    this.sentence = sentence;
    this.step = STEPS[code] ?? "Try again; if it stays so, tell whoever runs this server.";
  }
}

export class Recording {
  #base;
  #headers;

  /** `key` is the operator's key, or an empty string for a server that asks for none. */
  constructor(id, key) {
    this.id = id;
    this.#base = `/api/interviews/${encodeURIComponent(id)}`;
    this.#headers = key ? { Authorization: `Bearer ${key}` } : {};
  }

  /** What there is: {state, seconds, files, …}. */
  listing() {
    return this.#json(`${this.#base}/recording`);
  }

  /** Peaks of both voices: {per_second, full_scale, candidate, interviewer}. */
  waveform() {
    return this.#json(`${this.#base}/waveform`);
  }

  /** Who said what: {turns}. */
  transcript() {
    return this.#json(`${this.#base}/transcript`);
  }

  /** A file of the listing as a Blob. `progress` gets the share that has come, 0 to 1. */
  async file(path, progress = () => {}) {
    const response = await this.#ask(path);
    const size = Number(response.headers.get("Content-Length"));
    const chunks = [];
    let got = 0;
    try {
      for (const reader = response.body.getReader(); ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        chunks.push(value);
        got += value.length;
        if (size) progress(got / size);
      }
    } catch {
      throw new Refused("NETWORK", "The file broke off while it was coming.");
    }
    return new Blob(chunks, { type: response.headers.get("Content-Type") ?? "" });
  }

  async #json(path) {
    const response = await this.#ask(path);
    try {
      return await response.json();
    } catch {
      throw new Refused("INTERNAL", "The server's answer could not be read.");
    }
  }

  async #ask(path) {
    let response;
    try {
      response = await fetch(path, { headers: this.#headers, cache: "no-store" });
    } catch {
      throw new Refused("NETWORK", "The server could not be reached.");
    }
    if (response.ok) return response;
    let error = null;
    try {
      error = (await response.json()).error;
    } catch {
      // Not ours, then: a proxy's page.
    }
    throw new Refused(
      error?.code ?? `HTTP_${response.status}`,
      error?.message ?? `The server refused (status ${response.status}).`,
    );
  }
}
