/**
 * One interview's connection: signalling over a WebSocket, audio and events over WebRTC. No DOM.
 *
 * A `Link` is one attempt: a socket and a peer connection that live and die together. A
 * `Connection` is the interview as the page sees it: it owns the microphone, makes a first link,
 * and makes new ones when the media is lost while the server still holds the interview.
 */

import { Asking } from "./asking.js";
import { Failure, microphoneFailure, serverFailure } from "./failures.js";
import { Silence } from "./silence.js";

/** How long each step may take, in milliseconds. The server gives up on an answer after 15 s and
 * says so; let it speak first. */
const FIRST_TIME = { iceServers: 2_000, socket: 10_000, answer: 20_000, media: 15_000 };
/** The same for coming back: nobody else is asked, and an attempt that a changing network swallows
 * must leave time for another before the server lets go. */
const AGAIN = { iceServers: 1_000, socket: 4_000, answer: 4_000, media: 6_000 };

const HOLD_SECONDS = 10; // how long a server that does not say so holds an interview for a browser
const RESUME_PAUSE_MS = 500;
const DISCONNECTED_GRACE_MS = 1_500; // "disconnected" already means several silent seconds
const CHANNEL_CLOSED_GRACE_MS = 1_000; // lets a `session_ended` on its way arrive first
const GOODBYE_WITHIN_MS = 2_000;
const SERVICE_RESTART = 1012; // close code: the server that leads to the interview's own one ends
const REJOINS = 5; // attempts to find another that leads there

/** The stages in which there is something to end. */
const UNDER_WAY = new Set(["consent", "microphone", "connecting", "live", "reconnecting"]);

/** Refusals after which the earlier interview cannot be had back. */
const GONE = new Set(["SESSION_ENDED", "SESSION_NOT_FOUND", "SESSION_ID_TAKEN"]);

/**
 * The addresses a server URL stands for: `{socket, http}`, the second without a final slash.
 * Takes ws, wss, http and https URLs and bare hosts. Throws Failure BAD_ADDRESS.
 */
export function serverAddress(text, pageIsSecure) {
  const typed = text.trim();
  const whole = /^[a-z]+:\/\//i.test(typed) ? typed : `${pageIsSecure ? "wss" : "ws"}://${typed}`;
  let url;
  try {
    url = new URL(whole.replace(/^http/i, "ws"));
  } catch {
    throw new Failure("BAD_ADDRESS");
  }
  // Some browsers keep what cannot be in a host name, percent-encoded, instead of refusing it.
  const isAddress = ["ws:", "wss:"].includes(url.protocol) && /^[^%\s]+$/.test(url.hostname);
  if (!isAddress) throw new Failure("BAD_ADDRESS");
  if (url.pathname === "/") url.pathname = "/ws";
  url.hash = "";
  const http = `${url.protocol === "wss:" ? "https:" : "http:"}//${url.host}`;
  return { socket: url.href, http: http + url.pathname.replace(/\/ws(\/.*)?$/, "") };
}

/** A promise with its handles outside. A rejection nobody waits for yet is not an error. */
function deferred() {
  const handles = {};
  handles.promise = new Promise((resolve, reject) => Object.assign(handles, { resolve, reject }));
  handles.promise.catch(() => {});
  return handles;
}

/** `promise`, or a rejection with `failure` after `ms` milliseconds. */
async function within(ms, promise, failure) {
  let timer;
  const limit = new Promise((_, reject) => {
    timer = setTimeout(() => reject(failure), ms);
  });
  try {
    return await Promise.race([promise, limit]);
  } finally {
    clearTimeout(timer);
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function openMicrophone() {
  if (!globalThis.RTCPeerConnection) throw new Failure("NO_WEBRTC");
  if (!globalThis.isSecureContext) throw new Failure("INSECURE_ORIGIN");
  if (!navigator.mediaDevices?.getUserMedia) throw new Failure("NO_WEBRTC");
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio, video: false });
  } catch (error) {
    throw microphoneFailure(error);
  }
}

/** The server's relays and STUN servers, as RTCPeerConnection takes them. May reject. */
async function iceConfiguration(http, token, ms) {
  const signal = AbortSignal.timeout(ms);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(`${http}/api/ice-servers`, { signal, headers });
  if (!response.ok) throw new Error(`status ${response.status}`);
  const { iceServers, iceTransportPolicy } = await response.json();
  const configuration = { iceServers, iceTransportPolicy };
  // What the browser will not take must show here, where an interview can go on without it.
  new RTCPeerConnection(configuration).close();
  return configuration;
}

/** For whoever tests a relay: `?relay=1` on the page's address leaves audio no other way. */
const relayOnly = () => new URLSearchParams(location.search).get("relay") === "1";

/**
 * One socket, one peer connection. `hooks`: message, event, remote, media, socketClosed, lost,
 * relayFailed.
 */
class Link {
  #address;
  #limits;
  #hooks;
  #silence;
  #answered = deferred();
  #connected = deferred();
  #aborted = deferred();
  #closed = false;
  #timers = new Set();

  constructor(address, microphone, ice, limits, hooks) {
    this.#address = address;
    this.#limits = limits;
    this.#hooks = hooks;
    const peer = new RTCPeerConnection(ice);
    this.peer = peer;
    this.#silence = new Silence(
      peer, (seconds) => this.#lost(`nothing has come for ${seconds.toFixed(1)} s`));
    for (const track of microphone.getTracks()) peer.addTrack(track, microphone);
    this.channel = peer.createDataChannel("oai-events");
    peer.ontrack = (event) => {
      if (!this.#closed) hooks.remote(event.streams[0] ?? new MediaStream([event.track]));
    };
    peer.onconnectionstatechange = () => this.#peerChanged();
    peer.onicecandidateerror = (event) => this.#closed || hooks.relayFailed(event);
    this.channel.onopen = () => this.#peerChanged();
    this.channel.onmessage = (event) => this.#closed || hooks.event(event.data);
    this.channel.onclose = () => {
      this.#later(CHANNEL_CLOSED_GRACE_MS, () => this.#lost("the event channel closed"));
    };
  }

  get socketOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Signal and connect. Rejects with a Failure. `init` is the message that opens the session. */
  open(init) {
    return Promise.race([this.#run(init), this.#aborted.promise]);
  }

  /** Open the socket anew, at `address`; the media go on meanwhile. Rejects with a Failure. */
  async rejoin(address, init) {
    this.#address = address;
    try {
      await this.#openSocket();
    } catch (error) {
      this.socket?.close();
      throw error;
    }
    this.signal(init);
  }

  /** Send one signalling message; false when the socket is not open. */
  signal(message) {
    if (this.socketOpen) this.socket.send(JSON.stringify(message));
    return this.socketOpen;
  }

  /** The network may be another: find out soon whether this link still lives. */
  doubt() {
    this.#silence.doubt();
  }

  /** Close the media now. The socket too, unless it is kept for the server's last word. */
  close({ keepSocket = false } = {}) {
    this.#closed = true;
    this.#aborted.reject(new Failure("CONNECTION_LOST"));
    for (const timer of this.#timers) clearTimeout(timer);
    this.#silence.stop();
    this.peer.close();
    if (!keepSocket) this.socket?.close();
  }

  async #run(init) {
    const [offer] = await Promise.all([this.#offer(), this.#openSocket()]);
    this.signal(init);
    // Candidates are left out on purpose: the server learns our address from our own checks.
    this.signal({ type: "sdp_offer", offer: { type: offer.type, sdp: offer.sdp } });
    const answer = await within(
      this.#limits.answer, this.#answered.promise, new Failure("SERVER_TIMEOUT"));
    try {
      await this.peer.setRemoteDescription({ type: "answer", sdp: answer?.sdp });
    } catch {
      throw new Failure("BAD_ANSWER");
    }
    await within(this.#limits.media, this.#connected.promise, new Failure("MEDIA_TIMEOUT"));
  }

  async #offer() {
    const offer = await this.peer.createOffer();
    await this.peer.setLocalDescription(offer);
    return offer;
  }

  async #openSocket() {
    const opened = deferred();
    try {
      this.socket = new WebSocket(this.#address.socket);
    } catch {
      // Not an address, or a page on https may not open a plain ws:// one.
      throw new Failure("BAD_ADDRESS");
    }
    this.socket.onopen = () => opened.resolve();
    this.socket.onmessage = (event) => this.#message(event.data);
    this.socket.onclose = (event) => {
      this.restarts = event.code === SERVICE_RESTART;
      opened.reject(new Failure("SERVER_UNREACHABLE"));
      this.#answered.reject(new Failure("SIGNALLING_CLOSED"));
      this.#hooks.socketClosed(event.code, this.#closed);
    };
    return within(this.#limits.socket, opened.promise, new Failure("SERVER_UNREACHABLE"));
  }

  #message(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message === null || typeof message !== "object") return;
    if (message.type === "sdp_answer") {
      this.#answered.resolve(message.answer);
    } else if (message.type === "error") {
      const failure = serverFailure(message);
      this.#answered.reject(failure);
      this.#connected.reject(failure);
    } else if (message.type === "state" && message.phase === "failed") {
      // The sentence that says why may come right behind.
      this.#later(CHANNEL_CLOSED_GRACE_MS, () => this.#refuse(new Failure("INTERVIEW_FAILED")));
    } else if (message.type === "session_ended") {
      this.#refuse(new Failure("SESSION_ENDED", "The server ended the interview."));
    }
    this.#hooks.message(message);
  }

  #refuse(failure) {
    this.#answered.reject(failure);
    this.#connected.reject(failure);
  }

  #peerChanged() {
    if (this.#closed) return;
    const state = this.peer.connectionState;
    this.#hooks.media(state, this.channel.readyState === "open");
    if (state === "connected" && this.channel.readyState === "open") {
      this.#connected.resolve();
      this.#silence.start();
    }
    if (state === "failed" || state === "closed") {
      this.#connected.reject(new Failure("MEDIA_TIMEOUT"));
      this.#lost(`the media connection is ${state}`);
    }
    if (state === "disconnected") {
      this.#later(DISCONNECTED_GRACE_MS, () => {
        if (this.peer.connectionState === "disconnected") this.#lost("no media arrives");
      });
    }
  }

  #lost(reason) {
    if (!this.#closed) this.#hooks.lost(reason);
  }

  #later(ms, action) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (!this.#closed) action();
    }, ms);
    this.#timers.add(timer);
  }
}

/** The address of one interview: where several servers share the work, they are told apart by it. */
function socketOf(address, sessionId) {
  const named = sessionId && new URL(address.socket).pathname.endsWith("/ws");
  return named ? `${address.socket}/${encodeURIComponent(sessionId)}` : address.socket;
}

export class Connection {
  #address;
  #persona;
  #listener;
  #link = null;
  #microphone = null;
  #ice = null; // the newest that the server told
  #sessionId;
  #invitedTo;
  #shown; // what let in at first: the invitation's, or what was kept over a reload
  #token; // the same, then the newest for coming back; only ever sent, never shown
  #endingFor = null; // why the server is ending the interview, once it is
  #holdSeconds = HOLD_SECONDS; // how long the server holds the interview for a browser to return
  #asks; // whether the server may ask for consent; a promise of it
  #asking = null; // the question, while it is open
  #told = null; // what the server last complained of; if the interview fails, that is why
  #stage = "idle";
  #unsure = false; // whether the socket was opened anew, and the server has not said who it is
  #returning = false; // whether an attempt that fails is followed by another
  #network = new AbortController(); // ends listening to the network's changes

  /**
   * `address` comes from serverAddress(); `sessionId` continues an earlier interview, `invitedTo`
   * is the interview of an invitation; `token` opens either. `asks` says, or promises to say,
   * whether the server may want the candidate's consent first.
   * `listener`: change(partial state), consent({text, version, changed} or null),
   * event(model event), log(text), warn(Failure), nearing({seconds?}: the end is near),
   * failed(Failure), ended(reason or null).
   */
  constructor({
    address, persona = "", sessionId = null, invitedTo = null, token = null, asks = false,
    listener,
  }) {
    this.#address = address;
    this.#persona = persona;
    this.#sessionId = sessionId;
    this.#invitedTo = invitedTo;
    this.#token = this.#shown = token;
    this.#asks = asks;
    this.#listener = listener;
  }

  /** What brings an invited candidate back; null for everybody else. */
  get token() {
    return this.#token;
  }

  get peerConnection() {
    return this.#link?.peer ?? null;
  }

  #watchNetwork() {
    const options = { signal: this.#network.signal };
    globalThis.addEventListener("online", () => this.#networkChanged(), options);
    // Where it exists it also tells of mere estimates; the kind of network is what counts.
    const { connection } = navigator;
    let kind = connection?.type;
    connection?.addEventListener?.("change", () => {
      if (connection.type === kind) return;
      kind = connection.type;
      this.#networkChanged();
    }, options);
  }

  #networkChanged() {
    if (this.#stage === "live") this.#link?.doubt();
    // What was begun in the old network would be waited for in vain.
    if (this.#stage === "reconnecting" && this.#returning) this.#link?.close();
  }

  /** Ask for consent where it is needed, open the microphone and connect. Reports its failures to the listener; never rejects. */
  async start() {
    const resuming = this.#sessionId !== null;
    try {
      this.#enter(!resuming && this.#asks === true ? "consent" : "microphone");
      if (!resuming && (await this.#asks)) {
        if (this.#over) return;
        const { agreed, sessionId } = await this.#askConsent();
        if (this.#over) return;
        if (!agreed) {
          this.#end("consent_refused");
          return;
        }
        // Whoever was not invited goes on in the session that was agreed to.
        this.#invitedTo ??= sessionId;
        this.#enter("microphone");
      }
      if (this.#over) return;
      const microphone = await openMicrophone();
      if (this.#over) {
        stop(microphone);
        return;
      }
      this.#microphone = microphone;
      for (const track of microphone.getAudioTracks()) {
        track.onended = () => this.#over || this.#listener.warn(new Failure("MICROPHONE_LOST"));
      }
      this.#listener.change({ localStream: microphone });
      this.#enter(resuming ? "reconnecting" : "connecting");
      this.#watchNetwork();
      await this.#connectAtLast();
    } catch (error) {
      this.#setupFailed(error, resuming);
    }
  }

  async #askConsent() {
    this.#enter("consent");
    const show = (text) => this.#over || this.#listener.consent(text);
    // Whoever is not invited names the session, too: it is the same one if the socket drops.
    const init = { sessionId: crypto.randomUUID?.(), ...this.#init() };
    this.#asking = new Asking(this.#address.socket, init, show);
    try {
      return await this.#asking.run();
    } finally {
      this.#asking = null;
      this.#listener.consent(null);
    }
  }

  /** What the candidate decided about the text that `consent` told of. */
  decide(agreed) {
    this.#asking?.decide(agreed);
  }

  /** Send one event to the model. Returns false when the channel is not open. */
  send(event) {
    const channel = this.#link?.channel;
    if (channel?.readyState !== "open") return false;
    channel.send(JSON.stringify(event));
    return true;
  }

  /** End the interview for good. */
  disconnect() {
    if (this.#over) return;
    if (this.#stage === "consent") {
      // Nothing was decided, and nothing has begun: the invitation stays as it is.
      this.#finish("idle");
      this.#listener.ended(null);
      return;
    }
    const link = this.#link;
    // A socket that was opened anew may be in no interview yet.
    const told = !this.#unsure && (link?.signal({ type: "disconnect" }) ?? false);
    this.#finish("ended", { keepSocket: told });
    if (told) setTimeout(() => link.socket.close(), GOODBYE_WITHIN_MS);
    else if (this.#sessionId) this.#sayGoodbye();
    this.#listener.ended(null);
  }

  /** Let go of everything without ending the interview on the server: the page is going away. */
  abandon() {
    if (!this.#over) this.#finish("idle");
  }

  get #over() {
    return !UNDER_WAY.has(this.#stage);
  }

  #enter(stage) {
    this.#stage = stage;
    this.#listener.change({ stage });
  }

  async #connect(limits) {
    this.#link?.close();
    this.#unsure = false;
    const ice = await this.#iceConfiguration(limits);
    if (this.#over) throw new Failure("CONNECTION_LOST");
    const hooks = {
      message: (message) => this.#message(message),
      event: (data) => this.#event(data),
      remote: (remoteStream) => this.#listener.change({ remoteStream }),
      media: (media, channelOpen) => this.#listener.change({ media, channelOpen }),
      socketClosed: (code, ours) => this.#socketClosed(code, ours),
      lost: (reason) => this.#lost(reason),
      relayFailed: (event) => this.#relayFailed(event),
    };
    const link = new Link(this.#ownAddress(), this.#microphone, ice, limits, hooks);
    this.#link = link;
    await link.open(this.#init());
    if (this.#link === link && !this.#over) this.#enter("live");
  }

  /** The first connection; once more where the server that leads to ours ends in the middle. */
  async #connectAtLast() {
    try {
      await this.#connect(FIRST_TIME);
    } catch (error) {
      if (this.#over || !this.#link?.restarts) throw error;
      this.#listener.log("The server that led to the interview ends. Trying another.");
      await pause(RESUME_PAUSE_MS);
      if (!this.#over) await this.#connect(FIRST_TIME);
    }
  }

  /** Listen again through another server; the call goes on whether or not there is one. */
  async #rejoin(link) {
    if (link.rejoining) return;
    link.rejoining = true;
    for (let left = REJOINS; left > 0 && link.rejoining; left -= 1) {
      await pause(RESUME_PAUSE_MS);
      if (this.#stage !== "live" || this.#link !== link) return;
      this.#unsure = true;
      try {
        await link.rejoin(this.#ownAddress(), this.#init());
        link.rejoining = false;
      } catch (error) {
        this.#listener.log(`That did not work: ${error.message}`);
      }
    }
    link.rejoining = false;
  }

  /**
   * Whoever is invited or comes back names the interview in the address too: a server that takes
   * nobody new must see before its greeting that it is none. A server elsewhere may not know that.
   */
  #ownAddress() {
    const sessionId = this.#sessionId ?? this.#invitedTo;
    const comesBack = this.#sessionId !== null && this.#address.http === location.origin;
    if (!this.#token && !comesBack) return this.#address;
    return { ...this.#address, socket: socketOf(this.#address, sessionId) };
  }

  /** Asked anew for each link: a relay counts what one credential was used for. */
  #init() {
    const init = { type: "init" };
    const sessionId = this.#sessionId ?? this.#invitedTo;
    if (sessionId) init.sessionId = sessionId;
    else if (this.#persona) init.aiPersona = this.#persona;
    if (this.#token) init.token = this.#token;
    return init;
  }

  async #iceConfiguration(limits) {
    try {
      this.#ice = await iceConfiguration(this.#address.http, this.#token, limits.iceServers);
    } catch (error) {
      // A server that cannot be reached for a while is told of often enough.
      if (!this.#ice) {
        this.#listener.log(`The server named no relays (${error.message}). Going on without.`);
      }
      this.#ice ??= {};
    }
    if (!relayOnly()) return this.#ice;
    this.#listener.log("Audio may go through a relay alone, because of ?relay=1.");
    return { ...this.#ice, iceTransportPolicy: "relay" };
  }

  #relayFailed({ url, errorCode, errorText }) {
    const why = errorText || "no answer";
    this.#listener.log(`${url} could not be used: ${why} (${errorCode}).`);
  }

  #message(message) {
    switch (message.type) {
      case "session":
        if (typeof message.holdSeconds === "number") this.#held(message.holdSeconds);
      // falls through
      case "sdp_answer":
        if (typeof message.sessionId === "string") {
          // A socket's greeting names a new session; while resuming, ours is the older one.
          const back = this.#stage === "reconnecting" || this.#unsure;
          if (message.type === "session" && back) break;
          // So it does before the server has seen an invitation.
          if (this.#invitedTo !== null && message.sessionId !== this.#invitedTo) break;
          if (typeof message.resumeToken === "string") this.#token = message.resumeToken;
          this.#sessionId = message.sessionId;
          this.#listener.change({ sessionId: message.sessionId });
        }
        break;
      case "state":
        if (message.sessionId === this.#sessionId) this.#unsure = false;
        this.#phase(message);
        break;
      case "session_ended":
        this.#listener.log("The server ended the session.");
        this.#link?.socket.close();
        if (this.#stage === "live") this.#end(message.reason);
        break;
      case "warning":
        if (this.#stage === "live") this.#listener.nearing(message);
        break;
      case "error":
        if (this.#unsure) {
          this.#listener.log(`That did not work: ${serverFailure(message).message}`);
        } else if (this.#stage === "live") {
          this.#told = serverFailure(message);
          this.#listener.warn(this.#told);
        }
        break;
      default:
        break;
    }
  }

  #held(seconds) {
    this.#holdSeconds = seconds;
    this.#listener.change({ holdSeconds: seconds });
  }

  #phase({ phase, sessionId, reason }) {
    if (sessionId && this.#sessionId && sessionId !== this.#sessionId) return;
    if (typeof phase !== "string") return;
    this.#listener.change({ phase });
    this.#listener.log(`Interview phase: ${phase}${reason ? ` (${reason})` : ""}.`);
    if (this.#stage !== "live") return;
    if (phase === "detached") this.#lost("the server no longer hears this page");
    if (phase === "ending") this.#endingFor = reason ?? "";
    if (phase === "ended") this.#end(reason);
    if (phase === "failed") this.#fail(this.#why(reason) ?? new Failure("INTERVIEW_FAILED"));
  }

  /** The server's own sentence about the end of the interview, if it is about this reason. */
  #why(reason) {
    return this.#told?.code === String(reason).toUpperCase() ? this.#told : null;
  }

  #event(data) {
    let event = null;
    try {
      event = JSON.parse(data);
    } catch {
      // Falls through: what is no JSON object is no event.
    }
    if (event !== null && typeof event === "object") this.#listener.event(event);
    else this.#listener.log("An event that is not JSON was left out.");
  }

  #socketClosed(code, ours) {
    if (ours || this.#stage !== "live") return;
    this.#listener.log(`The signalling socket closed (code ${code}). The call goes on without it.`);
    if (code === SERVICE_RESTART) this.#rejoin(this.#link);
  }

  async #lost(reason) {
    if (this.#stage !== "live") return;
    if (this.#endingFor !== null) {
      // The server hangs up before its last file is written; there is nothing to come back to.
      const why = this.#why(this.#endingFor);
      if (why) this.#fail(why);
      else this.#end(this.#endingFor);
      return;
    }
    this.#listener.log(`The connection was lost: ${reason}. Trying to continue the interview.`);
    this.#listener.change({ channelOpen: false });
    this.#enter("reconnecting");
    this.#returning = true;
    const deadline = performance.now() + this.#holdSeconds * 1000;
    while (!this.#over) {
      const left = deadline - performance.now();
      if (left <= 0) {
        this.#fail(new Failure("CONNECTION_LOST"));
        return;
      }
      try {
        await within(left, this.#connect(AGAIN), new Failure("CONNECTION_LOST"));
        this.#returning = false;
        this.#listener.log("The interview continues.");
        return;
      } catch (error) {
        if (this.#over) return;
        if (GONE.has(error.code)) {
          this.#end("the server no longer holds it");
          return;
        }
        this.#listener.log(`That did not work: ${error.message}`);
        await pause(RESUME_PAUSE_MS);
      }
    }
  }

  #setupFailed(error, resuming) {
    if (this.#over) return;
    // What had begun is undone: what let in before does so again, not what brings back.
    if (!resuming && error.code === "DRAINING") this.#token = this.#shown;
    if (resuming && GONE.has(error.code)) this.#end("the server no longer holds it");
    else this.#fail(error instanceof Failure ? error : new Failure("UNEXPECTED"));
  }

  #fail(failure) {
    if (this.#over) return;
    this.#finish("failed");
    this.#listener.failed(failure);
  }

  #end(reason) {
    if (this.#over) return;
    this.#finish("ended");
    this.#listener.ended(typeof reason === "string" ? reason : "the server ended it");
  }

  #finish(stage, closing) {
    this.#enter(stage);
    this.#network.abort();
    this.#asking?.close();
    this.#link?.close(closing);
    if (this.#microphone) stop(this.#microphone);
    this.#microphone = null;
    this.#listener.change({
      media: "closed", channelOpen: false, localStream: null, remoteStream: null,
    });
  }

  /** The old socket is gone: a fresh one carries the goodbye, so that the server need not wait. */
  #sayGoodbye() {
    const sessionId = this.#sessionId;
    const init = this.#init();
    const socket = new WebSocket(this.#ownAddress().socket);
    socket.onopen = () => {
      socket.send(JSON.stringify(init));
      socket.send(JSON.stringify({ type: "disconnect", sessionId }));
      setTimeout(() => socket.close(), GOODBYE_WITHIN_MS);
    };
  }
}

function stop(stream) {
  for (const track of stream.getTracks()) {
    track.onended = null;
    track.stop();
  }
}
