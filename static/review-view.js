/**
 * What the review page shows: the document as a function of one state, and nothing else.
 *
 * Text from elsewhere is only ever set as text.
 */

import { Lane } from "./waveform.js";

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

/** Why an interview ended, by the server's word for it. */
const REASONS = {
  client_request: "ended by the candidate",
  browser_gone: "the candidate left",
  idle: "ended because nothing happened any more",
  operator_request: "ended by an operator",
  interviewer_ended: "ended by the interviewer",
  server_shutdown: "ended because the server stopped",
  connect_timeout: "never connected",
  browser_failed: "never connected",
  model_unreachable: "the voice service was not reached",
  model_lost: "the connection to the voice service was lost",
  model_closed: "the voice service ended the call",
  model_expired: "it lasted as long as the voice service allows",
  time_limit: "its time was over",
  usage_limit: "it used all its tokens",
  recovered: "the server went down within it",
  internal: "something went wrong on the server",
};

/** What becomes of a file after it was finished; other codes are of before. */
export const SINCE = new Set(["missing", "changed", "unreadable"]);

/** Every element of the page that has an id, by it. */
export const element = Object.fromEntries(
  [...document.querySelectorAll("[id]")].map((found) => [found.id, found]),
);
const lanes = {
  candidate: new Lane(element["lane-candidate"]),
  interviewer: new Lane(element["lane-interviewer"]),
};
let drawnFiles = null;
let drawnTurns = null;
let drawnPeaks = null;
let followed = null;

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

/** One word for what is wrong with a file, by the codes of the list. */
function wordOf(damage) {
  return damage.find((code) => SINCE.has(code)) ?? "damaged";
}

function damageOf(listing) {
  const sentences = listing.files
    .filter((file) => file.damage.length)
    .map((file) => {
      const [name] = FILE_NAMES[file.name] ?? [file.name];
      const word = wordOf(file.damage);
      if (SINCE.has(word)) return `${name}: ${word}.`;
      return file.name.endsWith(".ogg")
        ? `${name} was damaged when it was recorded: what is missing is silent.`
        : `${name} was damaged when it was written down.`;
    });
  if (listing.message) sentences.push(listing.message);
  return sentences.join(" ");
}

/** Write only what differs: a live region speaks whatever is written to it. */
function text(id, value) {
  if (element[id].textContent !== value) element[id].textContent = value;
}

/** Show this state. `acts` are {jump(seconds), download(file)}, for what is drawn to be clicked. */
export function draw(state, acts) {
  const ready = state.stage === "ready";
  element["ask-card"].hidden = ready;
  for (const card of ["sound-card", "transcript-card", "files-card"]) element[card].hidden = !ready;
  drawStatus(state);
  if (!ready) return;
  drawSound(state);
  drawTurns(state, acts);
  drawFiles(state, acts);
}

function drawStatus(state) {
  const failure = state.failure;
  text("alert", failure ? `${failure.sentence} ${failure.step}` : "");
  text("waiting", state.waitingFor ?? "");
  const [word, tone] = {
    asking: [state.keyWanted ? "Key needed" : "Nothing open", "quiet"],
    loading: ["Opening", "busy"],
    waiting: state.lookIn === null ? ["Not available", "bad"] : ["Not ready", "busy"],
    ready: state.playing ? ["Playing", "good"] : ["Open", "good"],
  }[state.stage];
  text("badge-word", failure && state.stage === "asking" ? "Not opened" : word);
  element.badge.dataset.tone = failure ? "bad" : tone;
  element.open.disabled = state.stage === "loading";
  document.title = state.id ? `Recording of ${state.id}` : "Recording of an interview";
}

/** Who agreed to the recording, and when; nothing where nobody was asked. */
function consentOf(consent) {
  if (!consent) return "";
  const at = new Date(consent.at).toLocaleString();
  if (consent.by !== "candidate") return `Agreement to record was noted on ${at}, as obtained before.`;
  return `The candidate agreed to being recorded on ${at}, text version ${consent.version}.`;
}

function drawSound(state) {
  const { listing, length } = state;
  const at = new Date(listing.started_at);
  const whole = listing.complete ? "" : ", not complete";
  const why = listing.reason ? `; ${REASONS[listing.reason] ?? listing.reason}` : "";
  text("facts", `${state.id}, ${at.toLocaleString()}, ${time(listing.seconds)}${whole}${why}`);
  text("consent", consentOf(listing.consent));
  text("damage", damageOf(listing));
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
  drawLanes(state);
}

function drawLanes(state) {
  const share = state.length ? state.position / state.length : 0;
  for (const lane of Object.values(lanes)) lane.draw(share);
}

/** The same after the page was laid out anew. */
export function redrawLanes(state) {
  for (const lane of Object.values(lanes)) lane.resize();
  drawLanes(state);
}

function drawTurns(state, acts) {
  if (drawnTurns !== state.turns) {
    drawnTurns = state.turns;
    followed = null;
    element.turns.replaceChildren(...state.turns.map((turn) => turnElement(turn, acts)));
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
  if (!state.follow || state.current === null) followed = null;
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

function turnElement(turn, acts) {
  const item = document.createElement("li");
  item.dataset.speaker = turn.speaker;
  item.dataset.status = turn.status;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "turn";
  const timed = typeof turn.start_ms === "number";
  button.disabled = !timed;
  const speaker = document.createElement("span");
  speaker.className = "speaker";
  const when = document.createElement("span");
  when.className = "when";
  when.textContent = timed ? time(turn.start_ms / 1000) : "";
  const name = document.createElement("span");
  name.textContent = SPEAKERS[turn.speaker] ?? "Somebody";
  speaker.append(name, when);
  const words = document.createElement("span");
  const heard = turn.heard_text ?? turn.text;
  words.textContent = heard || "(no words)";
  button.append(speaker, words);
  let note = TURN_NOTES[turn.status];
  if (note && heard !== turn.text) note += `; not heard: ${turn.text.slice(heard.length).trim()}`;
  if (note) {
    const line = document.createElement("span");
    line.className = "note";
    line.textContent = note;
    button.append(line);
  }
  button.addEventListener("click", () => acts.jump(turn.start_ms / 1000));
  item.append(button);
  return item;
}

function drawFiles(state, acts) {
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
      const wrong = file.damage.length ? `, ${wordOf(file.damage)}` : "";
      facts.textContent = `${kind}, ${size(file.bytes)}${wrong}`;
      button.append(facts);
      button.addEventListener("click", () => acts.download(file));
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
