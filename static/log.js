/**
 * The page's log: timed lines, never more than a fixed number. Pure, no DOM.
 */

export const LOG_LIMIT = 500;

export class Log {
  #lines = [];
  #next = 1;

  /** Append one line. `at` is a Date. Returns the line: {id, at, text}. */
  add(text, at = new Date()) {
    const line = Object.freeze({ id: this.#next++, at: at.toISOString(), text: String(text) });
    this.#lines.push(line);
    if (this.#lines.length > LOG_LIMIT) this.#lines.shift();
    return line;
  }

  /** The kept lines, oldest first. A copy: callers cannot change the log through it. */
  lines() {
    return this.#lines.slice();
  }

  /** Lines younger than `id`, oldest first. */
  since(id) {
    return this.#lines.filter((line) => line.id > id);
  }
}
