/**
 * Asks the candidate to agree to being recorded, before the microphone is opened. No DOM: the page
 * shows the text and says what was decided.
 *
 * A socket of its own carries it. One that drops while somebody reads is opened again when there
 * is a decision to send, and once more if it drops while that is on its way: the server tells then
 * whether it has it, and to send it twice is harmless.
 */

import { Failure, serverFailure } from "./failures.js";

const GREETED_WITHIN_MS = 10_000;
const CONFIRMED_WITHIN_MS = 10_000;

export class Asking {
  #address;
  #init;
  #show;
  #socket = null;
  #timer = null;
  #shown = null; // version of the text on the page
  #decision = null; // whether the candidate agrees, once that is known
  #sentBefore = false; // whether a socket dropped with the decision on its way
  #over = false;
  #settle;

  /**
   * `init` is the message that opens the session. `show({text, version, changed})` puts a text on
   * the page; `changed` is true for one that takes the place of a text that was decided about.
   */
  constructor(address, init, show) {
    this.#address = address;
    this.#init = init;
    this.#show = show;
    this.outcome = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.outcome.catch(() => {});
  }

  /**
   * The outcome: {agreed, sessionId}. `agreed` is true also where nobody has to be asked;
   * `sessionId` is null then. Rejects with a Failure.
   */
  run() {
    this.#open();
    return this.outcome;
  }

  /** What the candidate decided about the text that is shown. */
  decide(agreed) {
    this.#decision = agreed;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#send();
    else if (!this.#over) this.#open();
  }

  /** Ask no longer; what was not decided stays so. */
  close() {
    this.#end((settle) => settle.reject(new Failure("CONNECTION_LOST")));
  }

  #end(how) {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    how(this.#settle);
    this.#socket?.close();
  }

  #fail(failure) {
    this.#end((settle) => settle.reject(failure));
  }

  /** The server says nothing; `code` is why, unless a decision is on its way: that counts more. */
  #unanswered(code) {
    this.#fail(new Failure(this.#decision === null ? code : "DECISION_LOST"));
  }

  #finish(agreed, sessionId) {
    this.#end((settle) => settle.resolve({ agreed, sessionId }));
  }

  #open() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#unanswered("SERVER_UNREACHABLE"), GREETED_WITHIN_MS);
    let socket;
    try {
      socket = new WebSocket(this.#address);
    } catch {
      this.#fail(new Failure("BAD_ADDRESS"));
      return;
    }
    let opened = false;
    this.#socket = socket;
    socket.onopen = () => {
      opened = true;
      socket.send(JSON.stringify(this.#init));
    };
    socket.onmessage = (event) => {
      if (socket === this.#socket && !this.#over) this.#take(event.data);
    };
    socket.onclose = () => {
      if (socket !== this.#socket || this.#over) return;
      // Somebody reads: there is time until there is something to send.
      if (this.#shown !== null && this.#decision === null) return;
      if (opened && this.#decision !== null && !this.#sentBefore) {
        this.#sentBefore = true;
        this.#open();
        return;
      }
      this.#unanswered(opened ? "SIGNALLING_CLOSED" : "SERVER_UNREACHABLE");
    };
  }

  #take(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    // A greeting may come before the server has seen whom the invitation is for.
    const wanted = this.#init.sessionId;
    if (wanted && message?.sessionId && message.sessionId !== wanted) return;
    switch (message?.type) {
      case "session":
        if (!message.consentRequired) this.#finish(true, this.#shown && message.sessionId);
        break;
      case "consent_required":
        this.#required(message);
        break;
      case "consent":
        if (message.agreed) this.#finish(true, message.sessionId);
        break;
      case "state":
        // Agreed to on another page of the same interview.
        if (this.#shown !== null && message.phase === "created") {
          this.#finish(true, message.sessionId);
        }
        break;
      case "session_ended":
        if (message.reason === "consent_refused") this.#finish(false, message.sessionId);
        else this.#fail(new Failure("SESSION_ENDED", "The server ended the interview."));
        break;
      case "error":
        // The text comes along, and is to be read again.
        if (message.code !== "CONSENT_OUTDATED") this.#fail(serverFailure(message));
        break;
      default:
        break;
    }
  }

  #required({ text, version }) {
    clearTimeout(this.#timer);
    if (this.#decision !== null && version === this.#shown) {
      this.#send();
      return;
    }
    const changed = this.#decision !== null;
    this.#decision = null;
    this.#sentBefore = false;
    this.#shown = version;
    this.#show({ text: String(text), version: String(version), changed });
  }

  #send() {
    const decided = { type: "consent", agreed: this.#decision, version: this.#shown };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#unanswered("SERVER_TIMEOUT"), CONFIRMED_WITHIN_MS);
    this.#socket.send(JSON.stringify(decided));
  }
}
