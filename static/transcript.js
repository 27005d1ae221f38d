/**
 * Who said what, from the events of the `oai-events` channel. Pure: no DOM, no clock, no network.
 *
 * Turns stand in the order of the conversation (each item names the one before it), not in the
 * order in which their texts arrive: the text of what the candidate said usually comes after the
 * interviewer has begun to answer.
 */

const CANDIDATE = "candidate";
const INTERVIEWER = "interviewer";
const SPEAKERS = { user: CANDIDATE, assistant: INTERVIEWER };

/** A turn's status: still growing, whole, cut off by the other speaker, or without a text. */
export const TurnStatus = Object.freeze({
  PARTIAL: "partial",
  COMPLETE: "complete",
  INTERRUPTED: "interrupted",
  FAILED: "failed",
});

export class Transcript {
  #turns = new Map(); // item id -> turn
  #order = []; // item ids, as the conversation goes
  #responses = new Map(); // response id -> the item ids it speaks
  #hidden = new Set(); // items that are no one's speech (system notes, calls of functions)
  #playing = new Set(); // responses that are sounding now
  #sounded = new Set(); // responses that ever were
  #listening = false;

  /** Take one event of the model. Returns true when a turn or a speaker changed. */
  feed(event) {
    switch (event?.type) {
      case "input_audio_buffer.speech_started":
        this.#listening = true;
        this.#turn(event.item_id, CANDIDATE);
        return true;
      case "input_audio_buffer.speech_stopped":
        this.#listening = false;
        return true;
      case "input_audio_buffer.timeout_triggered":
        // Silence becomes an item, so that a reply follows; nobody said what is made of it.
        if (!this.#turns.has(event.item_id)) this.#hidden.add(event.item_id);
        return false;
      case "input_audio_buffer.committed":
        this.#turn(event.item_id, CANDIDATE);
        this.#place(event.item_id, event.previous_item_id);
        return true;
      case "conversation.item.added":
      case "conversation.item.done":
        return this.#item(event.item, event.previous_item_id, event.type.endsWith(".done"));
      case "conversation.item.deleted":
        return this.#remove(event.item_id);
      case "conversation.item.truncated": {
        const turn = this.#turns.get(event.item_id);
        if (!turn) return false;
        turn.status = TurnStatus.INTERRUPTED;
        turn.heardMs = typeof event.audio_end_ms === "number" ? event.audio_end_ms : null;
        return true;
      }
      case "conversation.item.input_audio_transcription.delta":
        return this.#grow(event.item_id, CANDIDATE, event.delta);
      case "conversation.item.input_audio_transcription.completed":
        return this.#settle(event.item_id, CANDIDATE, event.transcript);
      case "conversation.item.input_audio_transcription.failed": {
        const turn = this.#turn(event.item_id, CANDIDATE);
        if (turn) turn.status = TurnStatus.FAILED;
        return Boolean(turn);
      }
      case "response.output_item.added":
        this.#responseSpeaks(event.response_id, event.item?.id);
        return this.#item(event.item, undefined, false);
      case "response.output_audio_transcript.delta":
      case "response.output_text.delta":
        this.#responseSpeaks(event.response_id, event.item_id);
        return this.#grow(event.item_id, INTERVIEWER, event.delta);
      case "response.output_audio_transcript.done":
        return this.#settle(event.item_id, INTERVIEWER, event.transcript);
      case "response.output_text.done":
        return this.#settle(event.item_id, INTERVIEWER, event.text);
      case "response.done":
        return this.#responseDone(event.response);
      case "output_audio_buffer.started":
        this.#playing.add(event.response_id);
        this.#sounded.add(event.response_id);
        return true;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.#playing.delete(event.response_id);
        return true;
      default:
        return false;
    }
  }

  /** Copies of the turns: {id, speaker, text, status, heardMs}, in conversation order. */
  turns() {
    return this.#order.map((id) => {
      const turn = this.#turns.get(id);
      return { ...turn, text: turn.text.trim() };
    });
  }

  /** "candidate", "interviewer" or null: whose voice sounds now, as the model sees it. */
  speaking() {
    if (this.#listening) return CANDIDATE;
    return this.#playing.size > 0 ? INTERVIEWER : null;
  }

  /** The connection is gone: nobody speaks, and what was growing or sounding was cut off. */
  finish() {
    const cut = this.#itemsOf(this.#playing);
    const sounded = this.#itemsOf(this.#sounded);
    this.#listening = false;
    this.#playing.clear();
    for (const turn of [...this.#turns.values()]) {
      const ours = turn.speaker === INTERVIEWER;
      if (ours && !turn.text && !sounded.has(turn.id)) {
        this.#remove(turn.id); // announced, and never begun
      } else if (turn.status === TurnStatus.PARTIAL) {
        turn.status = turn.text || ours ? TurnStatus.INTERRUPTED : TurnStatus.FAILED;
      } else if (turn.status === TurnStatus.COMPLETE && cut.has(turn.id)) {
        turn.status = TurnStatus.INTERRUPTED;
      }
    }
  }

  #itemsOf(responses) {
    return new Set([...responses].flatMap((id) => [...(this.#responses.get(id) ?? [])]));
  }

  #turn(id, speaker) {
    if (typeof id !== "string" || this.#hidden.has(id)) return null;
    let turn = this.#turns.get(id);
    if (!turn) {
      turn = { id, speaker, text: "", status: TurnStatus.PARTIAL, heardMs: null };
      this.#turns.set(id, turn);
      this.#order.push(id);
    }
    return turn;
  }

  #place(id, previous) {
    if (previous === undefined || previous === id || !this.#turns.has(id)) return;
    if (previous !== null && !this.#turns.has(previous)) return;
    const rest = this.#order.filter((other) => other !== id);
    rest.splice(previous === null ? 0 : rest.indexOf(previous) + 1, 0, id);
    this.#order = rest;
  }

  #item(item, previous, done) {
    if (typeof item?.id !== "string") return false;
    const speaker = item.type === "message" ? SPEAKERS[item.role] : undefined;
    if (!speaker) {
      this.#hidden.add(item.id);
      return false;
    }
    const turn = this.#turn(item.id, speaker);
    if (!turn) return false;
    turn.speaker = speaker;
    this.#place(item.id, previous);
    const written = writtenText(item.content);
    if (written) {
      turn.text = written;
      if (turn.status === TurnStatus.PARTIAL) turn.status = TurnStatus.COMPLETE;
    }
    // A candidate's item is done long before its text is known, so `done` closes replies alone.
    if (done && speaker === INTERVIEWER && turn.status === TurnStatus.PARTIAL) {
      turn.status = item.status === "incomplete" ? TurnStatus.INTERRUPTED : TurnStatus.COMPLETE;
    } else if (done && item.status === "incomplete") {
      turn.status = TurnStatus.INTERRUPTED;
    }
    return true;
  }

  #grow(id, speaker, delta) {
    const turn = this.#turn(id, speaker);
    if (!turn || typeof delta !== "string") return false;
    turn.text += delta;
    return true;
  }

  #settle(id, speaker, text) {
    const turn = this.#turn(id, speaker);
    if (!turn) return false;
    if (typeof text === "string" && text !== "") turn.text = text;
    if (turn.status === TurnStatus.PARTIAL) turn.status = TurnStatus.COMPLETE;
    return true;
  }

  #remove(id) {
    this.#order = this.#order.filter((other) => other !== id);
    return this.#turns.delete(id);
  }

  #responseSpeaks(responseId, itemId) {
    if (typeof responseId !== "string" || typeof itemId !== "string") return;
    const items = this.#responses.get(responseId) ?? new Set();
    items.add(itemId);
    this.#responses.set(responseId, items);
  }

  #responseDone(response) {
    const items = this.#responses.get(response?.id) ?? [];
    const ending = { cancelled: TurnStatus.INTERRUPTED, incomplete: TurnStatus.INTERRUPTED,
      failed: TurnStatus.FAILED }[response?.status];
    if (!ending) return false;
    for (const id of items) {
      const turn = this.#turns.get(id);
      if (turn) turn.status = ending;
    }
    return true;
  }
}

/** Text that an item was written with, as opposed to spoken. */
function writtenText(content) {
  if (!Array.isArray(content)) return "";
  return content
    .filter((part) => part?.type === "input_text" || part?.type === "output_text")
    .map((part) => (typeof part.text === "string" ? part.text : ""))
    .join("");
}
