/**
 * The review page: the only module of it that touches the document.
 *
 * What is shown is a function of one state object. `update` alone changes it and asks for one draw;
 * `draw` alone writes to the document. Text from elsewhere is only ever set as text. The operator's
 * key lives in this tab's session storage and goes nowhere but into requests to this server.
 */

import { Recording, Refused } from "./recording.js";
import { Lane } from "./waveform.js";

const KEY = "interview-peer.operator-key";
const LOOK_AGAIN_MS = 2_000;
const STEP = 5;
const BIG_STEP = 30;
const JUMP = 10;

const KEY_PLEASE = "This server asks for the operator's key before it hands out recordings.";

const SPEAKERS = { candidate: "Candidate", interviewer: "Interviewer" };
const TURN_NOTES = {
  partial: "not finished",
  interrupted: "interrupted",
  failed: "not understood",
};
const FILE_NAMES = {
  "mixed.webm": ["Both voices", "WebM, candidate left, interviewer right"],
  "candidate.ogg": ["Candidate's voice", "Ogg Opus"],
  "interviewer.ogg": ["Interviewer's voice", "Ogg Opus"],
  "transcript.txt": ["Transcript", "text"],
  "transcript.vtt": ["Captions", "WebVTT"],
  "transcript.srt": ["Captions", "SubRip"],
  "transcript.json": ["Transcript", "JSON"],
};

const element = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((found) => [found.id, found]),
);
const lanes = {
  candidate: new Lane(element["lane-candidate"]),
  interviewer: new Lane(element["lane-interviewer"]),
};
const audio = element.audio;
let recording = null;
let opened = 0; // counts what was opened, so that answers to older questions are dropped
let drawWaits = false;
let drawnFiles = null;
let drawnTurns = null;
let drawnPeaks = null;
let followed = null;

const state = {
  stage: "asking", // asking, loading, waiting (for the server to finish it), ready
  id: new URLSearchParams(location.search).get("id") ?? "",
  keyWanted: false,
  keyKept: Boolean(sessionStorage.getItem(KEY)),
  failure: null, // {code, sentence, step}
  waitingFor: null, // a sentence while the recording is not ready
  listing: null,
  peaks: null,
  turns: [],
  turnsKnown: false,
  share: 0, // of the sound that has come
  soundReady: false,
  position: 0,
  length: 0,
  playing: false,
  current: null, // the turn that sounds, or sounded last
  follow: true,
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

function fail(error) {
  const told = error instanceof Refused ? error : new Refused("PAGE", "This page made a mistake.");
  update({ failure: { code: told.code, sentence: told.sentence, step: told.step } });
}

// -- opening ------------------------------------------------------------------------------------

async function open(id) {
  const turn = (opened += 1);
  const mine = () => turn === opened;
  close();
  update({ stage: "loading", id, failure: null, waitingFor: null });
  const key = sessionStorage.getItem(KEY) ?? "";
  recording = new Recording(id, key);
  const asked = recording;
  try {
    const listing = await asked.listing();
    if (!mine()) return;
    if (listing.state !== "ready") {
      update({ stage: "waiting", waitingFor: notReady(listing), keyWanted: false });
      if (listing.finishing?.state !== "failed") {
        setTimeout(() => mine() && open(id), LOOK_AGAIN_MS);
      }
      return;
    }
    update({ stage: "ready", listing, length: listing.seconds, keyWanted: false });
    const has = (name) => listing.files.some((file) => file.name === name);
    await Promise.all([
      has("waveform.json") && part(mine, asked.waveform(), (peaks) => update({ peaks })),
      part(mine, asked.transcript(), ({ turns }) => update({ turns, turnsKnown: true })),
      part(mine, loadSound(asked, listing, mine), (blob) => {
        audio.src = URL.createObjectURL(blob);
      }),
    ]);
  } catch (error) {
    if (!mine()) return;
    if (error.code === "UNAUTHORIZED") {
      sessionStorage.removeItem(KEY);
      update({ keyKept: false, keyWanted: true });
    }
    update({ stage: "asking" });
    // A server that asks for a key before one was given has not refused anything yet.
    if (error.code === "UNAUTHORIZED" && !key) update({ waitingFor: KEY_PLEASE });
    else fail(error);
  }
}

/** One of the parts of a recording; its failure leaves the others as they are. */
async function part(mine, promise, use) {
  try {
    const value = await promise;
    if (mine()) use(value);
  } catch (error) {
    if (mine()) fail(error);
  }
}

async function loadSound(asked, listing, mine) {
  const file = listing.files.find((one) => one.name === "mixed.webm");
  if (!file) throw new Refused("NOT_FOUND", "This recording has no mixed sound.");
  return asked.file(file.path, (share) => mine() && update({ share }));
}

function notReady(listing) {
  if (listing.state === "running") {
    return "The interview is still running. Its recording appears here once it has ended.";
  }
  if (listing.finishing?.state === "failed") {
    return "The recording could not be finished. The server's log says why.";
  }
  const share = listing.finishing?.progress;
  const done = typeof share === "number" ? ` ${Math.round(share * 100)} % is done.` : "";
  return `The recording is being finished.${done}`;
}

function close() {
  audio.pause();
  if (audio.src) URL.revokeObjectURL(audio.src);
  audio.removeAttribute("src");
  followed = null;
  update({
    listing: null, peaks: null, turns: [], turnsKnown: false, share: 0, soundReady: false,
    position: 0, length: 0, playing: false, current: null,
  });
}

async function download(file) {
  try {
    const blob = await recording.file(file.path);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${recording.id}-${file.name}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    fail(error);
  }
}

// -- playing ------------------------------------------------------------------------------------

function seek(seconds) {
  if (!state.soundReady) return;
  audio.currentTime = Math.min(Math.max(seconds, 0), state.length);
  moved();
}

async function toggle() {
  if (!state.soundReady) return;
  if (!audio.paused) {
    audio.pause();
    return;
  }
  if (audio.ended || audio.currentTime >= state.length) audio.currentTime = 0;
  await play();
}

async function play() {
  try {
    await audio.play();
  } catch (error) {
    // A pause that comes before playing has begun is no failure.
    if (error.name !== "AbortError") {
      fail(new Refused("PLAYBACK", "The browser did not play the sound."));
    }
  }
}

function moved() {
  const position = audio.currentTime;
  let current = null;
  for (const [index, turn] of state.turns.entries()) {
    if (typeof turn.started_at !== "number" || turn.started_at > position + 0.05) continue;
    // Voices overlap: the one that began last is the one to read.
    if (current === null || turn.started_at >= state.turns[current].started_at) current = index;
  }
  update({ position, current });
}

function tick() {
  moved();
  if (!audio.paused) requestAnimationFrame(tick);
}

audio.addEventListener("loadedmetadata", () => {
  const length = Number.isFinite(audio.duration) ? audio.duration : state.length;
  update({ soundReady: true, length });
});
audio.addEventListener("play", () => {
  update({ playing: true });
  requestAnimationFrame(tick);
});
audio.addEventListener("pause", () => update({ playing: false }));
audio.addEventListener("ended", () => update({ playing: false }));
audio.addEventListener("seeked", moved);
audio.addEventListener("error", () => {
  if (audio.getAttribute("src")) {
    fail(new Refused("PLAYBACK", "The browser cannot play this sound."));
  }
});

// -- drawing ------------------------------------------------------------------------------------

function time(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  const [hours, minutes, rest] = [whole / 3600, (whole % 3600) / 60, whole % 60].map(Math.floor);
  const tail = String(rest).padStart(2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${tail}` : `${minutes}:${tail}`;
}

function size(bytes) {
  if (bytes < 1_000) return `${bytes} bytes`;
  if (bytes < 1_000_000) return `${Math.round(bytes / 1_000)} kB`;
  return `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** Write only what differs: a live region speaks whatever is written to it. */
function text(id, value) {
  if (element[id].textContent !== value) element[id].textContent = value;
}

function draw() {
  const ready = state.stage === "ready";
  element["ask-card"].hidden = ready;
  for (const card of ["sound-card", "transcript-card", "files-card"]) element[card].hidden = !ready;
  drawStatus();
  if (!ready) return;
  drawSound();
  drawTurns();
  drawFiles();
}

function drawStatus() {
  const failure = state.failure;
  text("alert", failure ? `${failure.sentence} ${failure.step}` : "");
  text("waiting", state.waitingFor ?? "");
  const [word, tone] = {
    asking: [state.keyWanted ? "Key needed" : "Nothing open", "quiet"],
    loading: ["Opening", "busy"],
    waiting: ["Not ready", "busy"],
    ready: state.playing ? ["Playing", "good"] : ["Open", "good"],
  }[state.stage];
  text("badge-word", failure && state.stage === "asking" ? "Not opened" : word);
  element.badge.dataset.tone = failure ? "bad" : tone;
  element.open.disabled = state.stage === "loading";
  document.title = state.id ? `Recording of ${state.id}` : "Recording of an interview";
}

function drawSound() {
  const { listing, length } = state;
  const at = new Date(listing.started_at);
  const whole = listing.complete ? "" : ", not complete";
  text("facts", `${state.id}, ${at.toLocaleString()}, ${time(listing.seconds)}${whole}`);
  text("clock", `${time(state.position)} / ${time(length)}`);
  text("play", state.playing ? "Pause" : "Play");
  for (const button of ["back", "play", "forward"]) element[button].disabled = !state.soundReady;
  const coming = `The sound is coming: ${Math.floor(state.share * 10) * 10} %.`;
  text("sound-hint", state.soundReady || state.failure ? "" : coming);

  const timeline = element.timeline;
  timeline.setAttribute("aria-disabled", String(!state.soundReady));
  timeline.setAttribute("aria-valuemax", length.toFixed(1));
  timeline.setAttribute("aria-valuenow", state.position.toFixed(1));
  timeline.setAttribute("aria-valuetext", `${time(state.position)} of ${time(length)}`);
  if (drawnPeaks !== state.peaks) {
    drawnPeaks = state.peaks;
    for (const [speaker, lane] of Object.entries(lanes)) {
      lane.show(state.peaks?.[speaker] ?? [], state.peaks?.full_scale ?? 255);
    }
    element.ruler.replaceChildren(
      ...[0, 0.25, 0.5, 0.75, 1].map((share) => {
        const mark = document.createElement("span");
        mark.textContent = time(listing.seconds * share);
        return mark;
      }),
    );
  }
  drawLanes();
}

function drawLanes() {
  const share = state.length ? state.position / state.length : 0;
  for (const lane of Object.values(lanes)) lane.draw(share);
}

function drawTurns() {
  if (drawnTurns !== state.turns) {
    drawnTurns = state.turns;
    followed = null;
    element.turns.replaceChildren(...state.turns.map(turnElement));
  }
  const empty = state.turnsKnown && state.turns.length === 0;
  element["transcript-empty"].hidden = !empty;
  text("transcript-empty", empty ? "Nobody said a word." : "");
  const buttons = element.turns.querySelectorAll(".turn");
  for (const [index, button] of buttons.entries()) {
    const now = index === state.current;
    if (now !== (button.getAttribute("aria-current") === "true")) {
      if (now) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
  }
  if (state.follow && state.current !== null && followed !== state.current) {
    followed = state.current;
    reveal(buttons[state.current]);
  }
}

/** Scroll the transcript alone; the page stays where its reader put it. */
function reveal(button) {
  const scroll = element["transcript-scroll"];
  const box = scroll.getBoundingClientRect();
  const at = button.getBoundingClientRect();
  if (at.top >= box.top && at.bottom <= box.bottom) return;
  scroll.scrollTop += at.top - box.top - Math.max((box.height - at.height) / 3, 0);
}

function turnElement(turn) {
  const item = document.createElement("li");
  item.dataset.speaker = turn.speaker;
  item.dataset.status = turn.status;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "turn";
  const timed = typeof turn.started_at === "number";
  button.disabled = !timed;
  const speaker = document.createElement("span");
  speaker.className = "speaker";
  const when = document.createElement("span");
  when.className = "when";
  when.textContent = timed ? time(turn.started_at) : "";
  const name = document.createElement("span");
  name.textContent = SPEAKERS[turn.speaker] ?? "Somebody";
  speaker.append(name, when);
  const words = document.createElement("span");
  words.textContent = turn.text || "(no words)";
  button.append(speaker, words);
  const note = TURN_NOTES[turn.status];
  if (note) {
    const line = document.createElement("span");
    line.className = "note";
    line.textContent = note;
    button.append(line);
  }
  button.addEventListener("click", () => {
    seek(turn.started_at);
    void play();
  });
  item.append(button);
  return item;
}

function drawFiles() {
  element.forget.hidden = !state.keyKept;
  if (drawnFiles === state.listing) return;
  drawnFiles = state.listing;
  const files = state.listing.files;
  const order = Object.keys(FILE_NAMES);
  const offered = files
    .filter((file) => file.path && file.name in FILE_NAMES)
    .sort((one, other) => order.indexOf(one.name) - order.indexOf(other.name));
  element.downloads.replaceChildren(
    ...offered.map((file) => {
      const [name, kind] = FILE_NAMES[file.name];
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.dataset.file = file.name;
      button.textContent = name;
      const facts = document.createElement("small");
      facts.textContent = `${kind}, ${size(file.bytes)}`;
      button.append(facts);
      button.addEventListener("click", () => void download(file));
      item.append(button);
      return item;
    }),
  );
  element.hashes.replaceChildren(
    ...files.flatMap((file) => {
      const name = document.createElement("dt");
      name.textContent = file.name;
      const hash = document.createElement("dd");
      hash.textContent = `${file.bytes} bytes, SHA-256 ${file.sha256}`;
      return [name, hash];
    }),
  );
}

// -- what people do -----------------------------------------------------------------------------

element.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  const id = element["interview-id"].value.trim();
  const key = element["operator-key"].value.trim();
  if (!id) {
    update({ failure: { code: "PAGE", sentence: "Which interview?", step: "Enter its id." } });
    element["interview-id"].focus();
    return;
  }
  if (key) sessionStorage.setItem(KEY, key);
  element["operator-key"].value = "";
  history.replaceState(null, "", `?id=${encodeURIComponent(id)}`);
  update({ keyKept: Boolean(sessionStorage.getItem(KEY)) });
  void opening(id);
});

/** Open, then put the focus where work goes on. */
async function opening(id) {
  await open(id);
  if (state.stage === "ready") element.timeline.focus({ preventScroll: true });
  else if (state.keyWanted) element["operator-key"].focus();
}

element.play.addEventListener("click", () => void toggle());
element.back.addEventListener("click", () => seek(audio.currentTime - JUMP));
element.forward.addEventListener("click", () => seek(audio.currentTime + JUMP));
element.speed.addEventListener("change", () => {
  audio.defaultPlaybackRate = audio.playbackRate = Number(element.speed.value);
});
element.follow.addEventListener("change", () => {
  followed = null;
  update({ follow: element.follow.checked });
});
element.forget.addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  opened += 1;
  close();
  update({ stage: "asking", keyKept: false, failure: null });
  element["operator-key"].focus();
});

function seekTo(event) {
  const box = element["lane-candidate"].getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * state.length);
}
element.timeline.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  element.timeline.setPointerCapture(event.pointerId);
  seekTo(event);
});
element.timeline.addEventListener("pointermove", (event) => {
  if (element.timeline.hasPointerCapture(event.pointerId)) seekTo(event);
});

const KEYS = {
  " ": () => void toggle(),
  ArrowLeft: () => seek(audio.currentTime - STEP),
  ArrowRight: () => seek(audio.currentTime + STEP),
  ArrowDown: () => seek(audio.currentTime - STEP),
  ArrowUp: () => seek(audio.currentTime + STEP),
  PageDown: () => seek(audio.currentTime - BIG_STEP),
  PageUp: () => seek(audio.currentTime + BIG_STEP),
  Home: () => seek(0),
  End: () => seek(state.length),
};
const ANYWHERE = new Set([" ", "ArrowLeft", "ArrowRight"]);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || state.stage !== "ready") return;
  const act = KEYS[event.key];
  const onTimeline = event.target === element.timeline;
  // Elsewhere the other keys scroll, and in a control every key is the control's own.
  const elsewhere =
    ANYWHERE.has(event.key) && !event.target.closest("input, select, button, summary, a");
  if (!act || !(onTimeline || elsewhere)) return;
  event.preventDefault();
  act();
});

function redrawLanes() {
  for (const lane of Object.values(lanes)) lane.resize();
  drawLanes();
}
new ResizeObserver(redrawLanes).observe(element.timeline);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawLanes);

element["interview-id"].value = state.id;
update({});
if (state.id) void opening(state.id);

/** For tests and for the curious; nothing on the page reads it. */
window.interviewReview = Object.freeze({
  get state() {
    return Object.freeze({ ...state });
  },
  get audio() {
    return audio;
  },
});
