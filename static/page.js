/**
 * The interview page: the only module that touches the document.
 *
 * What is shown is a function of one state object. `update` alone changes it and asks for one
 * draw; `draw` alone writes to the document. Text from elsewhere is only ever set as text.
 */

import { Connection, serverAddress } from "./connection.js";
import { Failure, modelFailure } from "./failures.js";
import { Log, LOG_LIMIT } from "./log.js";
import { watchLevel } from "./meter.js";
import { Transcript } from "./transcript.js";

const INVITATION_PATH = /^\/i\/([A-Za-z0-9_-]{1,64})$/;
const SAVED = "interview-peer.session";
const INVITED = "interview-peer.invitation";
const PERSONAS_WITHIN_MS = 2_000; // how long connecting waits to hear whether consent is asked for
const DECLINED =
  "You did not agree, so the interview does not take place. Nothing was recorded, and nothing " +
  "was sent to the interviewer. You can close this page.";

const STAGES = {
  idle: ["Not connected", "quiet", "Press Connect to begin."],
  consent: ["Your consent", "busy", "Please read the notice and decide."],
  microphone: ["Waiting for the microphone", "busy", "The browser may ask to use your microphone."],
  connecting: ["Connecting", "busy", "Talking to the server."],
  live: ["Connected", "good", "Speak when you are ready."],
  reconnecting: ["Reconnecting", "busy", "Trying to continue the interview."],
  ended: ["Ended", "quiet", "Press Connect to start another interview."],
  failed: ["Failed", "bad", "See the message above."],
};
const PHASES = {
  created: "Created",
  consent: "Waiting for your consent",
  connecting: "Connecting to the interviewer",
  live: "Live",
  detached: "Held by the server, waiting for this page",
  ending: "Ending",
  ended: "Ended",
  failed: "Failed",
};
const MEDIA = {
  new: "Not started",
  connecting: "Connecting",
  connected: "Connected",
  disconnected: "Interrupted",
  failed: "Failed",
  closed: "Closed",
};
const SPEAKER_NAMES = { candidate: "You", interviewer: "Interviewer" };
const TURN_NOTES = {
  partial: "",
  complete: "",
  interrupted: "interrupted",
  failed: "not understood",
};
/** Why an interview ended, by the server's word for it. */
const REASONS = {
  client_request: "it was ended from here",
  browser_gone: "this page was away for too long",
  idle: "nothing was said for a long time",
  operator_request: "the server's operator ended it",
  interviewer_ended: "the interviewer said goodbye",
  server_shutdown: "the server is being stopped",
  connect_timeout: "the audio connection could not be made in time",
  model_unreachable: "the voice service could not be connected in time",
  browser_failed: "the audio connection to this page broke",
  model_lost: "the connection to the interviewer was lost",
  model_closed: "the voice service ended the connection",
  model_expired: "it had lasted as long as the voice service allows",
  time_limit: "its time was over",
  usage_limit: "it had reached its full length",
  internal: "something went wrong on the server",
};
/** Refusals of the model that are part of an ordinary conversation. */
const BENIGN = new Set([
  "response_cancel_not_active",
  "conversation_already_has_active_response",
  "input_audio_buffer_commit_empty",
  "item_delete_invalid_item_id",
  "item_truncate_invalid_item_id",
  "item_retrieve_invalid_item_id",
]);

const element = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((found) => [found.id, found]),
);
const log = new Log();
const invitation = takeInvitation();
let transcript = new Transcript();
let connection = null;
let stopMeter = null;
let personasAsked = 0;
let personasKnown = Promise.resolve();
let drawnConsent = null;
let drawWaits = false;
let drawnTurns = null;

const state = {
  stage: "idle", // a key of STAGES
  phase: null, // the server's word for where the interview stands
  media: "closed", // RTCPeerConnection.connectionState
  channelOpen: false,
  sessionId: null,
  holdSeconds: 0, // how long the server waits for this page after a reload
  failure: null, // {code, sentence, step}
  notice: null, // a sentence about the end of the interview, near or past
  personas: [],
  persona: "",
  consent: null, // {text, version, changed}: what the candidate is asked to agree to
  deciding: false, // whether the candidate's answer to that is on its way
  declined: false, // whether they did not
  localStream: null,
  remoteStream: null,
  soundBlocked: false,
  level: 0,
  turns: [],
  speaking: null,
};

function update(change) {
  Object.assign(state, change);
  if (drawWaits) return;
  drawWaits = true;
  queueMicrotask(() => {
    drawWaits = false;
    draw();
  });
}

function note(text) {
  log.add(text);
  update({});
}

function fail(failure) {
  log.add(`${failure.sentence} [${failure.code}]`);
  update({ failure: { code: failure.code, sentence: failure.sentence, step: failure.step } });
}

/**
 * Which interview the page's address invites to, and by which token. The token goes out of the
 * address at once, so that it is in no history and is not passed on with a copied link.
 */
function takeInvitation() {
  const token = new URLSearchParams(location.hash.slice(1)).get("t");
  if (token) history.replaceState(history.state, "", location.pathname + location.search);
  const id = INVITATION_PATH.exec(location.pathname)?.[1] ?? null;
  return { id, token: id && (token ? keepInvitation(id, token) : keptInvitation(id)) };
}

/** Until the token is used, this tab keeps it: a reload while somebody reads must not lose it. */
function keepInvitation(id, token) {
  try {
    sessionStorage.setItem(INVITED, JSON.stringify({ id, token }));
  } catch {
    // Storage may be switched off; then only the link opens the interview again.
  }
  return token;
}

function keptInvitation(id) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(INVITED));
    return kept?.id === id && typeof kept.token === "string" ? kept.token : null;
  } catch {
    return null;
  }
}

/** The token that opens the invitation's interview: once it was used, the one for coming back. */
function invited() {
  return invitation.id && (connection?.token ?? invitation.token);
}

// What people do

function connect(resumed = null) {
  if (isOpen()) return;
  let address;
  try {
    address = serverAddress(element["server-url"].value, location.protocol === "https:");
  } catch (error) {
    fail(error);
    return;
  }
  transcript = new Transcript();
  update({
    failure: null, notice: null, phase: null, sessionId: null, turns: [], speaking: null,
    consent: null, deciding: false, declined: false,
  });
  note(resumed ? "Continuing the interview after a reload." : `Connecting to ${address.socket}`);
  // A token is for the server that the page came from, whatever else is typed as its address.
  const atHome = address.http === location.origin;
  const mine = new Connection({
    address,
    persona: state.persona,
    sessionId: resumed?.sessionId ?? null,
    invitedTo: atHome ? invitation.id : null,
    token: atHome ? (resumed?.token ?? invited()) : null,
    asks: invitation.id !== null || asksEverybody(),
    listener: listenTo(() => connection === mine, resumed !== null),
  });
  connection = mine;
  mine.start();
}

/** Whether the server asks those without an invitation, too; if it does not say, it is asked. */
async function asksEverybody() {
  const late = new Promise((resolve) => {
    setTimeout(resolve, PERSONAS_WITHIN_MS, true);
  });
  return Promise.race([personasKnown, late]);
}

function disconnect() {
  note("Disconnecting.");
  connection?.disconnect();
}

function sendTestMessage() {
  const sent = connection?.send({ type: "response.create" });
  note(sent ? "Sent response.create." : "The event channel is not open; nothing was sent.");
}

// What the connection reports. An older connection's last words are not for this page any more.

function listenTo(isCurrent, comesBack) {
  const guarded = (handler) => (...values) => {
    if (isCurrent()) handler(...values);
  };
  return {
    change: guarded(connectionChanged),
    consent: guarded(consentAsked),
    event: guarded(modelSaid),
    log: guarded(note),
    warn: guarded(fail),
    failed: guarded((failure) => {
      endTranscript();
      // Coming back may work the next time, for as long as the server holds the interview.
      if (!comesBack) forget();
      fail(failure);
    }),
    nearing: guarded(endIsNear),
    ended: guarded((reason) => {
      endTranscript();
      forget();
      const declined = reason === "consent_refused";
      const why = REASONS[reason] || reason || "the server ended it";
      const over = declined
        ? "The interview does not take place."
        : `The interview has ended: ${why}.`;
      const notice = reason === null ? null : over;
      note(notice ?? "Disconnected.");
      update({ notice, declined });
    }),
  };
}

/** Tell that the interview ends soon, so that it stays true however long it is read. */
function endIsNear({ seconds }) {
  let when = "soon";
  if (typeof seconds === "number") {
    const end = new Date(Date.now() + seconds * 1000);
    when = `at about ${end.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
  }
  const notice = `The interview will end ${when}.`;
  note(notice);
  update({ notice });
}

function connectionChanged(change) {
  if (change.stage && change.stage !== state.stage) log.add(`${STAGES[change.stage][0]}.`);
  if (change.stage === "live") {
    update({ failure: null });
    forgetInvitation();
  }
  if (change.sessionId && change.sessionId !== state.sessionId) {
    log.add(`Session ${change.sessionId}`);
  }
  if (change.media && change.media !== state.media) log.add(`Media connection: ${change.media}.`);
  update(change);
  if ("localStream" in change) followMicrophone(change.localStream);
  if ("remoteStream" in change) playRemote(change.remoteStream);
  if (state.stage === "live") remember();
}

function consentAsked(consent) {
  if (consent?.changed) note("The text has changed and is to be read again.");
  else if (consent) note("The server asks for consent before anything is recorded.");
  update({ consent, deciding: false });
}

function decide(agreed) {
  if (state.deciding) return;
  update({ deciding: true });
  note(agreed ? "Agreed to being recorded." : "Did not agree to being recorded.");
  connection?.decide(agreed);
}

function modelSaid(event) {
  if (transcript.feed(event)) {
    update({ turns: transcript.turns(), speaking: transcript.speaking() });
  }
  if (event.type === "error") {
    const failure = modelFailure(event.error);
    if (BENIGN.has(failure.code)) note(`The model declined a request: ${failure.code}.`);
    else fail(failure);
  } else if (typeof event.type === "string" && !event.type.endsWith(".delta")) {
    note(`Event ${event.type}`);
  }
}

function endTranscript() {
  transcript.finish();
  update({ turns: transcript.turns(), speaking: null });
}

function followMicrophone(stream) {
  stopMeter?.();
  stopMeter = stream ? watchLevel(stream, (level) => update({ level })) : null;
}

async function playRemote(stream) {
  const audio = element["remote-audio"];
  audio.srcObject = stream;
  update({ soundBlocked: false });
  if (!stream) return;
  try {
    await audio.play();
  } catch (error) {
    // A stream replaced by the next one aborts the play; only a refusal is worth a word.
    if (error.name !== "NotAllowedError") return;
    update({ soundBlocked: true });
    fail(new Failure("SOUND_BLOCKED"));
  }
}

async function playSound() {
  await playRemote(state.remoteStream);
  if (!state.soundBlocked) update({ failure: null });
}

async function loadPersonas() {
  const asked = ++personasAsked;
  let known;
  personasKnown = new Promise((resolve) => {
    known = resolve;
  });
  let personas = [];
  let preset = "";
  let consents = true;
  try {
    const { http } = serverAddress(element["server-url"].value, location.protocol === "https:");
    const response = await fetch(`${http}/api/personas`);
    if (!response.ok) throw new Error(`status ${response.status}`);
    const body = await response.json();
    personas = body.personas.filter((persona) => typeof persona?.name === "string");
    consents = body.consentRequired === true;
    preset = personas.some((persona) => persona.name === body.default) ? body.default : "";
  } catch {
    if (asked === personasAsked) note("The list of interviewers could not be loaded.");
  }
  known(consents);
  if (asked === personasAsked) update({ personas, persona: preset });
}

// A reload within the server's hold continues the interview

function remember() {
  const saved = {
    sessionId: state.sessionId,
    token: connection?.token ?? null,
    url: element["server-url"].value,
    until: Date.now() + state.holdSeconds * 1000,
  };
  try {
    sessionStorage.setItem(SAVED, JSON.stringify(saved));
  } catch {
    // Storage may be switched off; then a reload starts afresh.
  }
}

function forgetInvitation() {
  try {
    sessionStorage.removeItem(INVITED);
  } catch {
    // As above.
  }
}

function forget() {
  try {
    sessionStorage.removeItem(SAVED);
  } catch {
    // As above.
  }
}

function remembered() {
  try {
    const saved = JSON.parse(sessionStorage.getItem(SAVED));
    const isRecent = saved?.sessionId && Date.now() < saved.until;
    if (isRecent && [null, saved.sessionId].includes(invitation.id)) return saved;
  } catch {
    // As above.
  }
  forget();
  return null;
}

function leave() {
  if (!isOpen()) return;
  if (state.sessionId !== null) remember();
  connection.abandon();
}

function resume() {
  const saved = remembered();
  if (!saved) return;
  element["server-url"].value = saved.url;
  connect(saved);
}

// Drawing

function isOpen() {
  return ["consent", "microphone", "connecting", "live", "reconnecting"].includes(state.stage);
}

/** Write a property only when it differs: a live region must not be told the same thing twice. */
function put(target, property, value) {
  if (target[property] !== value) target[property] = value;
}

function attribute(target, name, value) {
  if (target.getAttribute(name) !== value) target.setAttribute(name, value);
}

function draw() {
  drawStatus();
  drawControls();
  drawConsent();
  drawAlert();
  drawMeter();
  drawTurns();
  drawLog();
}

function drawStatus() {
  const [word, tone, detail] = STAGES[state.stage];
  put(element["status-word"], "textContent", word);
  attribute(element["status-badge"], "data-tone", tone);
  const live = {
    candidate: "Listening to you.",
    interviewer: "The interviewer is speaking.",
  }[state.speaking];
  const now = state.stage === "live" ? [live, state.notice] : [state.notice];
  const said = now.filter(Boolean).join(" ") || detail;
  put(element["status-detail"], "textContent", said);
  const phase = state.phase === null ? "None yet" : (PHASES[state.phase] ?? state.phase);
  put(element.phase, "textContent", phase);
  put(element.media, "textContent", MEDIA[state.media] ?? state.media);
  put(element["session-id"], "textContent", state.sessionId ?? "None yet");
}

function drawControls() {
  const open = isOpen();
  const focused = document.activeElement;
  put(element["server-url"], "disabled", open);
  put(element.persona, "disabled", open || invitation.id !== null);
  put(element.connect, "disabled", open);
  put(element.disconnect, "disabled", !open);
  put(element["test-message"], "disabled", !state.channelOpen);
  put(element["play-sound"], "hidden", !state.soundBlocked);
  // A control that goes away under the keyboard would drop the focus to the top of the page.
  if (focused === element.connect && open) element.disconnect.focus();
  const gone = [element.disconnect, element["test-message"]].includes(focused) && focused.disabled;
  if (gone) (open ? element.disconnect : element.connect).focus();

  const select = element.persona;
  const names = ["", ...state.personas.map((persona) => persona.name)];
  if (names.join("\n") !== [...select.options].map((option) => option.value).join("\n")) {
    const options = state.personas.map(
      (persona) => new Option(persona.title || persona.name, persona.name),
    );
    select.replaceChildren(new Option("The server's choice", ""), ...options);
  }
  put(select, "value", state.persona);
  const chosen = state.personas.find((persona) => persona.name === state.persona);
  put(element["persona-hint"], "textContent", chosen?.description ?? "");
}

function drawConsent() {
  const { consent, declined } = state;
  put(element.consent, "hidden", consent === null && !declined);
  put(element["consent-choice"], "hidden", consent === null);
  put(element["consent-changed"], "hidden", !consent?.changed);
  drawDeciding();
  const said = consent ?? (declined ? DECLINED : null);
  if (said === drawnConsent) return;
  drawnConsent = said;
  const heading = element["consent-heading"];
  heading.textContent = declined ? "The interview does not take place" : "Before you begin";
  const paragraphs = String(consent?.text ?? said ?? "").split(/\n\s*\n/);
  element["consent-text"].replaceChildren(
    ...paragraphs.filter((text) => text.trim() !== "").map((text) => {
      const paragraph = document.createElement("p");
      paragraph.textContent = text.trim();
      return paragraph;
    }),
  );
  element["consent-version"].textContent = consent?.version ?? "";
  // Read out from its beginning, whatever had the focus.
  if (said !== null) heading.focus();
}

function drawDeciding() {
  const { deciding } = state;
  // Not taken away, only without effect: the focus stays where it is.
  for (const button of [element.agree, element.decline]) {
    attribute(button, "aria-disabled", String(deciding));
  }
  put(element["consent-sending"], "textContent", deciding ? "Sending your answer…" : "");
}

function drawAlert() {
  const { failure } = state;
  const text = failure ? `${failure.sentence} ${failure.step}` : "";
  if (element.alert.textContent === text) return;
  if (!failure) {
    element.alert.replaceChildren();
    return;
  }
  const strong = document.createElement("strong");
  strong.textContent = failure.sentence;
  element.alert.replaceChildren(strong, ` ${failure.step}`);
  attribute(element.alert, "data-code", failure.code);
}

function drawMeter() {
  const percent = Math.round(state.level * 100);
  const words = state.localStream ? (percent > 25 ? "Sound" : "Quiet") : "Off";
  element["meter-bar"].style.setProperty("--level", String(state.level));
  attribute(element.meter, "aria-valuenow", String(percent));
  attribute(element.meter, "aria-valuetext", words);
  put(element["meter-hint"], "textContent", words);
}

function drawTurns() {
  if (state.turns === drawnTurns) return;
  drawnTurns = state.turns;
  const list = element.transcript;
  const scroll = element["transcript-scroll"];
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 48;
  const known = new Map([...list.children].map((item) => [item.dataset.id, item]));
  let changed = false;
  state.turns.forEach((turn, index) => {
    const item = known.get(turn.id) ?? newTurn(turn);
    known.delete(turn.id);
    if (list.children[index] !== item) {
      list.insertBefore(item, list.children[index] ?? null);
      changed = true;
    }
    changed = drawTurn(item, turn) || changed;
  });
  for (const gone of known.values()) gone.remove();
  put(element["transcript-empty"], "hidden", state.turns.length > 0);
  if (changed && atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function newTurn(turn) {
  const item = document.createElement("li");
  item.dataset.id = turn.id;
  for (const part of ["speaker", "text", "note"]) {
    const span = document.createElement(part === "text" ? "p" : "span");
    span.className = part;
    item.append(span);
  }
  return item;
}

function drawTurn(item, turn) {
  const [speaker, text, remark] = item.children;
  const words = turn.text || (turn.status === "partial" ? "…" : "(no words)");
  const changed = text.textContent !== words;
  attribute(item, "data-speaker", turn.speaker);
  attribute(item, "data-status", turn.status);
  // While a turn grows, screen readers wait; they read it once when it is whole.
  attribute(item, "aria-busy", String(turn.status === "partial"));
  put(speaker, "textContent", SPEAKER_NAMES[turn.speaker]);
  put(text, "textContent", words);
  put(remark, "textContent", TURN_NOTES[turn.status]);
  put(remark, "hidden", remark.textContent === "");
  return changed;
}

function drawLog() {
  const scroll = element.log;
  const list = element["log-lines"];
  const last = Number(list.lastElementChild?.dataset.id ?? 0);
  const fresh = log.since(last);
  if (fresh.length === 0) return;
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 32;
  for (const line of fresh) {
    const item = document.createElement("li");
    item.dataset.id = String(line.id);
    const time = document.createElement("time");
    time.dateTime = line.at;
    time.textContent = line.at.slice(11, 23);
    item.append(time, ` ${line.text}`);
    list.append(item);
  }
  while (list.children.length > LOG_LIMIT) list.firstElementChild.remove();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

// Start

window.interviewPeer = Object.freeze({
  get state() {
    return Object.freeze({ ...state });
  },
  get transcript() {
    return transcript.turns();
  },
  get log() {
    return log.lines();
  },
  get peerConnection() {
    return connection?.peerConnection ?? null;
  },
  get remoteStream() {
    return state.remoteStream;
  },
});

element["server-url"].value =
  `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}/ws`;
element.controls.addEventListener("submit", (event) => {
  event.preventDefault();
  connect();
});
element.disconnect.addEventListener("click", disconnect);
element["test-message"].addEventListener("click", sendTestMessage);
element.agree.addEventListener("click", () => decide(true));
element.decline.addEventListener("click", () => decide(false));
element["play-sound"].addEventListener("click", playSound);
element.persona.addEventListener("change", () => update({ persona: element.persona.value }));
element["server-url"].addEventListener("change", loadPersonas);
window.addEventListener("pagehide", leave);
window.addEventListener("pageshow", (event) => {
  if (event.persisted) resume();
});
loadPersonas();
resume();
draw();
