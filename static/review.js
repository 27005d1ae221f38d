/**
 * The review page: what it knows, and what becomes of what people do.
 *
 * `update` alone changes the one state object and asks for one draw (`review-view.js`). The
 * operator's key lives in this tab's session storage and goes nowhere but into requests to this
 * server.
 */

import { Player } from "./player.js";
import { Recording, Refused } from "./recording.js";
import { SINCE, draw, element, redrawLanes } from "./review-view.js";

const KEY = "interview-peer.operator-key";
const STEP = 5;
const BIG_STEP = 30;
const JUMP = 10;

/** A recording that is not ready is looked for again, less and less often while nothing changes. */
const LOOK_FIRST_MS = 2_000;
const LOOK_FACTOR = 1.5;
const LOOK_LAST_MS = 30_000;

const KEY_PLEASE = "This server asks for the operator's key before it hands out recordings.";

const player = new Player(element.audio, { tell: heard, fail });
let recording = null;
let opened = 0; // counts what was opened, so that answers to older questions are dropped
let drawWaits = false;

const state = {
  stage: "asking", // asking, loading, waiting (for the server to finish it), ready
  id: new URLSearchParams(location.search).get("id") ?? "",
  keyWanted: false,
  keyKept: Boolean(sessionStorage.getItem(KEY)),
  failure: null, // {code, sentence, step}
  waitingFor: null, // a sentence while the recording is not ready
  lookIn: null, // milliseconds until it is looked for again, if it is
  looks: 0, // that found it not ready
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

const acts = {
  jump(seconds) {
    player.seek(seconds);
    void player.play();
  },
  download: (file) => void download(file),
};

function update(change) {
  Object.assign(state, change);
  if (drawWaits) return;
  drawWaits = true;
  queueMicrotask(() => {
    drawWaits = false;
    draw(state, acts);
  });
}

function fail(error) {
  const told = error instanceof Refused ? error : new Refused("PAGE", "This page made a mistake.");
  update({ failure: { code: told.code, sentence: told.sentence, step: told.step } });
}

// -- opening ------------------------------------------------------------------------------------

/** `looked` is what was seen before, where this is not the first look. */
async function open(id, looked = null) {
  const turn = (opened += 1);
  const mine = () => turn === opened;
  if (looked === null) {
    close();
    update({ stage: "loading", id, failure: null, waitingFor: null, lookIn: null });
  }
  const key = sessionStorage.getItem(KEY) ?? "";
  recording = new Recording(id, key);
  const asked = recording;
  try {
    const listing = await asked.listing();
    if (!mine()) return;
    if (listing.state !== "ready") {
      const lookIn = nextLook(listing, looked);
      update({ stage: "waiting", waitingFor: notReady(listing), keyWanted: false });
      update({ lookIn, looks: state.looks + 1 });
      if (lookIn !== null) {
        setTimeout(() => whenSeen(() => mine() && open(id, { listing, lookIn })), lookIn);
      }
      return;
    }
    update({ stage: "ready", listing, length: listing.seconds });
    update({ keyWanted: false, waitingFor: null, lookIn: null });
    const has = (name) => listing.files.some((file) => file.name === name);
    await Promise.all([
      has("waveform.json") && part(mine, asked.waveform(), (peaks) => update({ peaks })),
      part(mine, asked.transcript(), ({ turns }) => update({ turns, turnsKnown: true })),
      part(mine, loadSound(asked, listing, mine), (blob) => {
        player.load(blob, listing.seconds);
      }),
    ]);
  } catch (error) {
    if (!mine()) return;
    if (error.code === "UNAUTHORIZED") {
      sessionStorage.removeItem(KEY);
      update({ keyKept: false, keyWanted: true });
    }
    update({ stage: "asking", waitingFor: null, lookIn: null });
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

/** In how many milliseconds it is worth looking again; null where only a person can help. */
function nextLook(listing, looked) {
  if (!["running", "finishing"].includes(listing.state)) return null;
  const seen = (one) => JSON.stringify([one.state, one.finishing]);
  if (looked === null || seen(listing) !== seen(looked.listing)) return LOOK_FIRST_MS;
  return Math.min(Math.round(looked.lookIn * LOOK_FACTOR), LOOK_LAST_MS);
}

/** Do it once somebody has the page before their eyes. */
function whenSeen(act) {
  if (!document.hidden) act();
  else document.addEventListener("visibilitychange", () => whenSeen(act), { once: true });
}

function notReady(listing) {
  if (listing.state === "running") {
    return "The interview is still running. Its recording appears here once it has ended.";
  }
  if (listing.message) return listing.message;
  const share = listing.finishing?.progress;
  const done = typeof share === "number" ? ` ${Math.round(share * 100)} % is done.` : "";
  return `The recording is being finished.${done}`;
}

function close() {
  player.close();
  update({
    listing: null, peaks: null, turns: [], turnsKnown: false, share: 0, soundReady: false,
    position: 0, length: 0, playing: false, current: null,
  });
}

async function download(file) {
  try {
    // What was damaged when it was finished is had as it is; the button says so.
    const before = file.name.endsWith(".ogg") && file.damage.some((code) => !SINCE.has(code));
    const blob = await recording.file(before ? `${file.path}?damaged=true` : file.path);
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

function heard(change) {
  if (change.position === undefined) update(change);
  else update({ ...change, current: turnAt(change.position) });
}

/** The turn that sounds at a position, or sounded last. */
function turnAt(position) {
  let current = null;
  for (const [index, turn] of state.turns.entries()) {
    if (typeof turn.start_ms !== "number" || turn.start_ms > position * 1000 + 50) continue;
    // Voices overlap: the one that began last is the one to read.
    if (current === null || turn.start_ms >= state.turns[current].start_ms) current = index;
  }
  return current;
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

element.play.addEventListener("click", () => void player.toggle());
element.back.addEventListener("click", () => player.move(-JUMP));
element.forward.addEventListener("click", () => player.move(JUMP));
element.speed.addEventListener("change", () => {
  player.rate = Number(element.speed.value);
});
element.follow.addEventListener("change", () => update({ follow: element.follow.checked }));
element.forget.addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  opened += 1;
  close();
  update({ stage: "asking", keyKept: false, failure: null, lookIn: null });
  element["operator-key"].focus();
});

function seekTo(event) {
  const box = element["lane-candidate"].getBoundingClientRect();
  player.seek(((event.clientX - box.left) / box.width) * state.length);
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
  " ": () => void player.toggle(),
  ArrowLeft: () => player.move(-STEP),
  ArrowRight: () => player.move(STEP),
  ArrowDown: () => player.move(-STEP),
  ArrowUp: () => player.move(STEP),
  PageDown: () => player.move(-BIG_STEP),
  PageUp: () => player.move(BIG_STEP),
  Home: () => player.seek(0),
  End: () => player.seek(state.length),
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

const laidOut = () => redrawLanes(state);
new ResizeObserver(laidOut).observe(element.timeline);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", laidOut);

element["interview-id"].value = state.id;
update({});
if (state.id) void opening(state.id);

/** For tests and for the curious; nothing on the page reads it. */
window.interviewReview = Object.freeze({
  get state() {
    return Object.freeze({ ...state });
  },
  get audio() {
    return element.audio;
  },
});
