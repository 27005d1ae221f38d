/**
 * Every way an interview can fail on this page: one sentence that says what happened and one that
 * says what to do next. No DOM.
 */

const KNOWN = {
  MICROPHONE_DENIED: [
    "The browser may not use your microphone.",
    "Allow the microphone for this page in the browser's address bar, then press Connect.",
  ],
  NO_MICROPHONE: [
    "No microphone was found.",
    "Plug one in or turn it on, then press Connect.",
  ],
  MICROPHONE_BUSY: [
    "The microphone could not be opened.",
    "Close other programs that use it, then press Connect.",
  ],
  MICROPHONE_LOST: [
    "The microphone went away, so the interviewer can no longer hear you.",
    "Plug it in again, then press Disconnect and Connect.",
  ],
  INSECURE_ORIGIN: [
    "Browsers give out the microphone only on secure pages.",
    "Open this page by https:// or on http://localhost.",
  ],
  NO_WEBRTC: [
    "This browser cannot make voice calls.",
    "Open the page in a current Chrome, Edge, Firefox or Safari.",
  ],
  BAD_ADDRESS: [
    "The server URL is not an address that this page can open.",
    "Write it like wss://example.org/ws, then press Connect.",
  ],
  SERVER_UNREACHABLE: [
    "The server could not be reached.",
    "Check the server URL and your network, then press Connect.",
  ],
  SERVER_TIMEOUT: [
    "The server did not answer in time.",
    "Wait a moment, then press Connect.",
  ],
  SIGNALLING_CLOSED: [
    "The server closed the connection before the interview began.",
    "Press Connect to try again; if it happens again, tell whoever runs the server.",
  ],
  DECISION_LOST: [
    "The connection was lost before the server confirmed your answer. Nothing was recorded.",
    "Press Connect to try again; if your answer did not arrive, you are asked once more.",
  ],
  BAD_ANSWER: [
    "The server's answer could not be used by this browser.",
    "Press Connect to try again; if it happens again, tell whoever runs the server.",
  ],
  MEDIA_TIMEOUT: [
    "The audio connection could not be made in time.",
    "A firewall may block it: try another network, then press Connect.",
  ],
  CONNECTION_LOST: [
    "The connection was lost and could not be made again.",
    "Check your network, then press Connect to start a new interview.",
  ],
  INTERVIEW_FAILED: [
    "The interview stopped because of a problem on the server.",
    "Press Connect to start a new one.",
  ],
  SOUND_BLOCKED: [
    "The browser is holding back the interviewer's voice.",
    "Press Play sound.",
  ],
  UNEXPECTED: [
    "Something on this page went wrong.",
    "Load the page again, then press Connect.",
  ],
};

/** What to do next after an error that the server reported, by its code. */
const AFTER_SERVER_ERROR = {
  UPSTREAM_AUTH_FAILED: "Nothing you can change here will help until its operator has acted.",
  UPSTREAM_REFUSED: "Or choose another interviewer, then press Connect.",
  PERSONA_NOT_FOUND: "Choose another interviewer, then press Connect.",
  SESSION_ENDED: "Press Connect to start a new interview.",
  SESSION_NOT_FOUND: "Press Connect to start a new interview.",
  SESSION_ID_TAKEN: "Press Connect to start a new interview.",
  TOKEN_REQUIRED: "Without it this page can do nothing.",
  TOKEN_INVALID: "Connecting once more will not help.",
  TOKEN_EXPIRED: "Connecting once more will not help.",
  TOKEN_USED: "Connecting once more will not help.",
};
const TRY_AGAIN = "Press Connect to try again.";

export class Failure extends Error {
  /** `code` is stable; `sentence` says what happened; `step` says what to do next. */
  constructor(code, sentence, step) {
    const [knownSentence, knownStep] = KNOWN[code] ?? [];
    super(sentence ?? knownSentence ?? KNOWN.UNEXPECTED[0]);
    this.name = "Failure";
    this.code = code;
    this.sentence = this.message;
    this.step = step ?? knownStep ?? TRY_AGAIN;
  }
}

/**
 * An `error` message of the server's, `{message, code, reason}`, as a Failure. Refused offers share
 * one code, for older front ends; their `reason` is the precise one.
 */
export function serverFailure(message) {
  const precise = message.code === "SDP_EXCHANGE_FAILED" ? message.reason : message.code;
  const code = [precise, message.code].find((one) => typeof one === "string") ?? "SERVER_ERROR";
  const said = typeof message.message === "string" ? message.message.trim() : "";
  const sentence = said || "The server refused the interview without saying why.";
  const step = AFTER_SERVER_ERROR[code] ?? TRY_AGAIN;
  return new Failure(code, sentence, / (try|connect) again/.test(said) ? "Press Connect." : step);
}

/** An `error` event of the model's service, as a Failure that does not end the interview. */
export function modelFailure(error) {
  const code = typeof error?.code === "string" ? error.code : "model_error";
  const said = typeof error?.message === "string" ? error.message : "no reason was given";
  return new Failure(
    code,
    `The interviewer's service reported a problem: ${said}`,
    "If the interviewer stays silent, press Disconnect and then Connect.",
  );
}

/** What getUserMedia rejected with, as a Failure. */
export function microphoneFailure(error) {
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new Failure("MICROPHONE_DENIED");
    case "NotFoundError":
    case "OverconstrainedError":
      return new Failure("NO_MICROPHONE");
    case "NotReadableError":
    case "AbortError":
      return new Failure("MICROPHONE_BUSY");
    default:
      return new Failure("UNEXPECTED");
  }
}
