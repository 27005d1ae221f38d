"""Every error raised on purpose, by who can mend it.

::

    InterviewPeerError
    ├── CallerError            the client must change what it sends        4xx
    │   ├── InvalidJson, InvalidMessage, UnknownMessageType, UnsupportedContentType
    │   ├── NotAcceptable, TooManyFollowers
    │   ├── InvalidSdp, SdpTooLarge, SdpWithoutAudio, SdpWithoutFingerprint
    │   ├── SessionNotFound, SessionEnded, SessionBusy, SessionIdTaken, InvalidSessionId
    │   ├── ConsentRequired, ConsentOutdated
    │   ├── PersonaNotFound, TooLarge, ExpectationFailed, RequestTooSlow
    │   ├── InterviewRunning, RecordingNotReady, RecordingMissing, RecordingErased,
    │   │   RangeNotSatisfiable
    │   ├── InvalidField           names the field
    │   │   ├── UnknownPersona, LimitExceeded, CallbackSecretRequired
    │   │   └── InvalidParameter       the same, told as OpenAI does
    │   │       └── UnknownParameter, MissingParameter
    │   ├── IdempotencyConflict, InterviewElsewhere, HopRefused, InterviewNotLive, KeyNotFound,
    │   │   SocketReplaced
    │   ├── Unauthorized
    │   │   └── TokenRequired, TokenInvalid, TokenExpired, TokenUsed
    │   ├── InsufficientScope, OriginNotAllowed, TokensElsewhere
    │   ├── InvalidWebhook, InvalidWebhookUrl, WebhookNotFound, DeliveryNotFound, TooManyWebhooks
    │   ├── RateLimited
    │   │   └── ConnectionFlooded, TooManyConnections, TooMuchToSay
    │   └── NotFound, MethodNotAllowed
    ├── UpstreamError          the voice service refused or failed         502, 503
    │   ├── UpstreamAuthFailed, UpstreamRefused, UpstreamInvalidAnswer
    │   ├── UpstreamRateLimited, UpstreamUnreachable, UpstreamTimeout
    │   └── ModelRefused           within an interview
    ├── AtCapacity             as many interviews as we take               503
    │   ├── OutOfDescriptors   no more files or sockets can be opened
    │   ├── Draining           no interview begins here any more
    │   └── DiskFull           no room for another recording
    ├── ConnectTimeout         a leg never connected                       503
    ├── StateUnavailable       the database does not answer                503
    ├── KeysUnavailable        an identity provider does not answer        503
    ├── StartFailed            the operator must make room, then start     exit code 2
    ├── RecordingDamaged       a file is not what it was                   500
    │   └── ManifestDamaged      nor is the list of all files
    ├── RecordingFailed        a recording could not be finished yet       503
    ├── StoreUnavailable       the recordings' store does not answer       503
    │   └── RecordingElsewhere   nor does one of earlier settings
    ├── OwnerUnreachable       the process that holds it does not answer   503
    └── ConfigurationError     the operator must change a setting          exit code 2

``code`` is stable and documented in ``docs/errors.md``. Messages are whole sentences for a
person and never carry a key, an SDP, a path or an upstream body.
"""

from __future__ import annotations

from typing import ClassVar


class InterviewPeerError(Exception):
    """Base class of every error raised on purpose."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    sentence: ClassVar[str] = "Something went wrong on our side. Please try again."
    openai_type: ClassVar[str] = "server_error"
    openai_code: ClassVar[str | None] = None
    retry_after: ClassVar[int] = 5
    """Seconds that a caller is asked to wait, where the status is 429 or 503."""

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence or self.sentence)

    @property
    def message(self) -> str:
        """The sentence that may be shown to a person."""
        return str(self.args[0])


class CallerError(InterviewPeerError):
    """The caller must change what it sends; trying the same again will not help."""

    code = "BAD_REQUEST"
    status = 400
    sentence = "The request could not be understood."
    openai_type = "invalid_request_error"


class InvalidJson(CallerError):
    """The text is not JSON, not a JSON object, or has more values than any message needs."""

    code = "INVALID_JSON"
    sentence = "The message is not a JSON object."
    openai_code = "invalid_json"


class InvalidMessage(CallerError):
    """A message of a known type has a missing or wrong field."""

    code = "INVALID_MESSAGE"
    sentence = "The message has a missing or wrong field."
    openai_code = "invalid_value"


class UnknownMessageType(CallerError):
    """The message's ``type`` is not one we know."""

    code = "UNKNOWN_MESSAGE_TYPE"
    sentence = "The message type is not known."
    openai_code = "invalid_value"


class UnsupportedContentType(CallerError):
    """The body has a content type that this path does not take."""

    code = "UNSUPPORTED_CONTENT_TYPE"
    status = 415
    sentence = "This path does not take that content type."
    openai_code = "unsupported_content_type"


class TooLarge(CallerError):
    """The body is larger than this path takes."""

    code = "TOO_LARGE"
    status = 413
    sentence = "The message is too large."
    openai_code = "too_large"


class ExpectationFailed(CallerError):
    """The request's ``Expect`` header asks for something else than ``100-continue``."""

    code = "EXPECTATION_FAILED"
    status = 417
    sentence = "This server meets no expectation but 100-continue."
    openai_code = "expectation_failed"


class RequestTooSlow(CallerError):
    """The body did not arrive in the time that it may take."""

    code = "REQUEST_TIMEOUT"
    status = 408
    sentence = "The request took too long to arrive."
    openai_code = "request_timeout"


class InvalidSdp(CallerError):
    """The offer is not SDP that we can answer."""

    code = "INVALID_SDP"
    sentence = "The offer is not a valid session description."
    openai_code = "invalid_offer"


class SdpTooLarge(InvalidSdp):
    """The offer is larger than 64 kB, or than the operator lets it be, or has too many lines."""

    code = "SDP_TOO_LARGE"
    status = 413
    sentence = "The offer is larger than this server takes."


class SdpWithoutAudio(InvalidSdp):
    """The offer has no audio section, or none with Opus."""

    code = "SDP_NO_AUDIO"
    sentence = "The offer has no audio section with Opus. Add a microphone track before offering."


class SdpWithoutFingerprint(InvalidSdp):
    """The offer names no DTLS certificate fingerprint that we support."""

    code = "SDP_NO_FINGERPRINT"
    sentence = "The offer names no certificate fingerprint."


class SessionNotFound(CallerError):
    """No session has this id."""

    code = "SESSION_NOT_FOUND"
    status = 404
    sentence = "There is no such session. It may have ended."
    openai_code = "call_id_not_found"


class SessionEnded(CallerError):
    """The session's interview is over."""

    code = "SESSION_ENDED"
    status = 409
    sentence = "This interview has ended. Start a new one."
    openai_code = "session_ended"


class SessionBusy(CallerError):
    """An offer of this session is still being answered."""

    code = "SESSION_BUSY"
    status = 409
    sentence = "An offer of this session is still being answered."
    openai_code = "session_busy"


class ConsentRequired(CallerError):
    """The candidate has not agreed to being recorded yet."""

    code = "CONSENT_REQUIRED"
    status = 403
    sentence = "You must agree to being recorded before this interview can begin."
    openai_code = "consent_required"


class ConsentOutdated(CallerError):
    """What was agreed to is not the text that belongs to this interview."""

    code = "CONSENT_OUTDATED"
    status = 409
    sentence = "The text has changed. Please read it again, then decide."
    openai_code = "consent_outdated"


class SessionIdTaken(CallerError):
    """The id a client chose belongs to an interview that already took place."""

    code = "SESSION_ID_TAKEN"
    status = 409
    sentence = "That session id has been used before. Leave it out and one is made for you."
    openai_code = "session_id_taken"


class InvalidSessionId(CallerError):
    """The id a client chose has characters or a length we do not take."""

    code = "INVALID_SESSION_ID"
    sentence = "A session id is 1 to 64 letters, digits, hyphens or underscores."
    openai_code = "invalid_value"


class PersonaNotFound(CallerError):
    """``aiPersona`` names neither a persona nor a voice."""

    code = "PERSONA_NOT_FOUND"
    sentence = "There is no persona or voice of that name."
    openai_code = "invalid_value"


class Unauthorized(CallerError):
    """The path needs the operator's key."""

    code = "UNAUTHORIZED"
    status = 401
    sentence = "This path needs the operator's key."
    openai_code = "invalid_api_key"


class TokenRequired(Unauthorized):
    """This interview, or this server, lets in only who has a token."""

    code = "TOKEN_REQUIRED"
    sentence = "Open the link of your invitation: this interview is for invited candidates."


class TokenInvalid(Unauthorized):
    """The token is not one of ours, or not for this interview."""

    code = "TOKEN_INVALID"
    sentence = "This invitation is not valid. Open the link again exactly as you received it."


class TokenExpired(Unauthorized):
    """The token was good, but its time has passed."""

    code = "TOKEN_EXPIRED"
    sentence = "This invitation has expired. Ask whoever invited you for a new one."


class TokenUsed(Unauthorized):
    """The token has let in somebody already; coming back takes the resume token."""

    code = "TOKEN_USED"
    sentence = "This invitation was used already. Ask whoever invited you for a new one."


class InsufficientScope(CallerError):
    """An operator's key is good, and has none of the scopes that the path asks for."""

    code = "INSUFFICIENT_SCOPE"
    status = 403
    sentence = "This key may not do this: it has not the scope that is needed."
    openai_code = "insufficient_scope"


class OriginNotAllowed(CallerError):
    """A page of another origin asks for what only certain pages may."""

    code = "ORIGIN_NOT_ALLOWED"
    status = 403
    sentence = (
        "Pages of this origin may not use this server. "
        "Whoever runs it can list the origin in INTERVIEW_ALLOWED_ORIGINS."
    )
    openai_code = "origin_not_allowed"


class TokensElsewhere(CallerError):
    """This server signs no join tokens: an identity provider does."""

    code = "TOKENS_ELSEWHERE"
    status = 409
    sentence = "This server makes no keys for candidates: it has no INTERVIEW_JOIN_SECRET."
    openai_code = "tokens_elsewhere"


class InvalidField(CallerError):
    """A field of the request is missing or wrong; ``field`` names it, dotted."""

    code = "INVALID_FIELD"
    status = 422
    sentence = "A field of the request is missing or wrong."
    openai_code = "invalid_value"

    def __init__(self, field: str, sentence: str | None = None) -> None:
        super().__init__(sentence)
        self.field = field


class UnknownPersona(InvalidField):
    """There is no interviewer of the name that the request gives."""

    code = "UNKNOWN_PERSONA"
    sentence = "persona names no interviewer of this server; GET /api/personas lists them."


class LimitExceeded(InvalidField):
    """The request asks for more than this server allows."""

    code = "LIMIT_EXCEEDED"
    sentence = "The request asks for more than this server allows."


class CallbackSecretRequired(InvalidField):
    """Notices to the callback could not be signed: it has no secret, and the server has none."""

    code = "CALLBACK_SECRET_REQUIRED"
    sentence = (
        "callback.secret: is missing, and this server has no INTERVIEW_WEBHOOK_SECRET to sign with."
    )


class InvalidParameter(InvalidField):
    """A field of a request in OpenAI's shape cannot be used; ``field`` names it, dotted."""

    code = "INVALID_PARAMETER"
    status = 400
    sentence = "A parameter of the request is wrong."


class UnknownParameter(InvalidParameter):
    """There is no such field in OpenAI's shape, nor did we add one."""

    code = "UNKNOWN_PARAMETER"
    sentence = "The request has a parameter that is not known."
    openai_code = "unknown_parameter"


class MissingParameter(InvalidParameter):
    """A field that OpenAI's shape demands is missing."""

    code = "MISSING_PARAMETER"
    sentence = "The request lacks a parameter."
    openai_code = "missing_required_parameter"


class IdempotencyConflict(CallerError):
    """The idempotency key was used before, for another request."""

    code = "IDEMPOTENCY_CONFLICT"
    status = 409
    sentence = "That idempotency key was used before, with another body."
    openai_code = "idempotency_conflict"


class InterviewElsewhere(CallerError):
    """The interview runs in another process of this service."""

    code = "INTERVIEW_ELSEWHERE"
    status = 409
    sentence = "This interview is held by another server. Ask that one, or try again later."
    openai_code = "interview_elsewhere"

    def __init__(self, interview_id: str | None = None) -> None:
        """``interview_id`` lets a request be passed on that named the interview in its body."""
        super().__init__()
        self.interview_id = interview_id


class HopRefused(CallerError):
    """The request says that another server of this service passed it on, and none did."""

    code = "HOP_REFUSED"
    sentence = "This request says that another server passed it on, which cannot be confirmed."
    openai_code = "hop_refused"


class InterviewNotLive(CallerError):
    """The interviewer can be told nothing, or nobody would hear it."""

    code = "INTERVIEW_NOT_LIVE"
    status = 409
    sentence = "Nobody is in this interview just now. Try again while it is live."


class KeyNotFound(CallerError):
    """No admin key has this id."""

    code = "KEY_NOT_FOUND"
    status = 404
    sentence = "There is no key of that id."
    openai_code = "not_found"


class TooManyFollowers(CallerError):
    """As many as may follow an interview live do so already."""

    code = "TOO_MANY_FOLLOWERS"
    status = 429
    sentence = "Too many follow this interview already."


class NotAcceptable(CallerError):
    """The caller takes no form that this path has."""

    code = "NOT_ACCEPTABLE"
    status = 406
    sentence = "This path has nothing in a form that the Accept header names."
    openai_code = "not_acceptable"


class NotFound(CallerError):
    """Nothing lives at this path."""

    code = "NOT_FOUND"
    status = 404
    sentence = "There is nothing at this address."
    openai_code = "not_found"


class MethodNotAllowed(CallerError):
    """The path exists, but not for this method."""

    code = "METHOD_NOT_ALLOWED"
    status = 405
    sentence = "This address does not take that method."
    openai_code = "method_not_allowed"


class RateLimited(CallerError):
    """The caller asks more often than this path allows."""

    code = "RATE_LIMITED"
    status = 429
    sentence = "That was asked too often. Wait a moment, then try again."
    openai_code = "rate_limit_exceeded"
    retry_after = 6


class ConnectionFlooded(RateLimited):
    """A browser sent so much on its connection that it was closed; the interview is held."""

    code = "CONNECTION_FLOODED"
    sentence = (
        "This connection sent far more than an interview needs, so it was closed. "
        "The interview can be continued from here."
    )
    openai_code = "connection_flooded"


class TooManyConnections(RateLimited):
    """Enough connections of this address wait for their token."""

    code = "TOO_MANY_CONNECTIONS"
    sentence = "Too many connections of your network are waiting. Try again in a moment."


class SocketReplaced(CallerError):
    """Newer WebSockets of the same interview took the place of this one."""

    code = "SOCKET_REPLACED"
    status = 409
    sentence = (
        "This interview was opened in several other places, so this page lost its connection."
    )


class TooMuchToSay(RateLimited):
    """Enough is waiting to be said by the interviewer."""

    code = "TOO_MUCH_TO_SAY"
    sentence = "Enough is waiting to be said in this interview. Try again when it has been said."


class InterviewRunning(CallerError):
    """The interview is still going on, so its recording can be neither handed out nor erased."""

    code = "INTERVIEW_RUNNING"
    status = 409
    sentence = "The interview is still running. Its recording can be had once it has ended."


class RecordingNotReady(CallerError):
    """The interview is over, but its recording is not finished."""

    code = "RECORDING_NOT_READY"
    status = 409
    sentence = "The recording is still being finished. Please try again in a moment."


class RecordingMissing(CallerError):
    """The interview is over, and nothing of its sound was recorded."""

    code = "RECORDING_MISSING"
    status = 404
    sentence = "There is no recording of this interview: nothing could be written down."


class RecordingErased(CallerError):
    """The recording was erased, on request or by age."""

    code = "RECORDING_ERASED"
    status = 410
    sentence = "The recording of this interview has been erased."


class RangeNotSatisfiable(CallerError):
    """The range that was asked for lies outside of the file."""

    code = "RANGE_NOT_SATISFIABLE"
    status = 416
    sentence = "That range lies outside of the file."


class InvalidWebhookUrl(CallerError):
    """The URL is not one that notices may be sent to."""

    code = "INVALID_WEBHOOK_URL"
    status = 422
    sentence = "url must be an https:// address without user, password or fragment."


class InvalidWebhook(CallerError):
    """A field of an endpoint is missing or wrong; the sentence names it."""

    code = "INVALID_WEBHOOK"
    status = 422
    sentence = "A field of the webhook is missing or wrong."


class WebhookNotFound(CallerError):
    """No endpoint has this id."""

    code = "WEBHOOK_NOT_FOUND"
    status = 404
    sentence = "There is no webhook endpoint of that id."


class DeliveryNotFound(CallerError):
    """No delivery has this id."""

    code = "DELIVERY_NOT_FOUND"
    status = 404
    sentence = "There is no delivery of that id."


class TooManyWebhooks(CallerError):
    """As many endpoints are kept as this server takes."""

    code = "TOO_MANY_WEBHOOKS"
    status = 409
    sentence = "No further webhook endpoint can be kept; delete one first."


class UpstreamError(InterviewPeerError):
    """The voice service refused or failed. The candidate can do nothing about it."""

    code = "UPSTREAM_ERROR"
    status = 502
    sentence = "The voice service could not start the interview. Please try again later."
    openai_code = "upstream_error"


class UpstreamAuthFailed(UpstreamError):
    """The service does not take our key (401, 403). The operator must act."""

    code = "UPSTREAM_AUTH_FAILED"
    sentence = (
        "The voice service refused this server's credentials. Please tell whoever runs this server."
    )
    openai_code = "upstream_auth_failed"


class UpstreamRefused(UpstreamError):
    """The service refused the call's configuration (another 4xx). Trying again will not help."""

    code = "UPSTREAM_REFUSED"
    sentence = (
        "The voice service refused to start this interview. "
        "Please tell whoever runs this server: model or persona may be wrong."
    )
    openai_code = "upstream_refused"


class UpstreamInvalidAnswer(UpstreamError):
    """The service answered something that is not a usable session description."""

    code = "UPSTREAM_INVALID_ANSWER"
    sentence = "The voice service gave an answer that could not be used. Please try again later."
    openai_code = "upstream_invalid_answer"


class UpstreamRateLimited(UpstreamError):
    """The service is over its limit or quota (429)."""

    code = "UPSTREAM_RATE_LIMITED"
    status = 503
    sentence = "The voice service is at its limit just now. Please try again in a few minutes."
    openai_code = "rate_limit_exceeded"


class UpstreamUnreachable(UpstreamError):
    """The service could not be reached."""

    code = "UPSTREAM_UNREACHABLE"
    status = 503
    sentence = "The voice service could not be reached. Please try again later."
    openai_code = "upstream_unreachable"


class UpstreamTimeout(UpstreamError):
    """The service did not answer in time."""

    code = "UPSTREAM_TIMEOUT"
    status = 503
    sentence = "The voice service did not answer in time. Please try again."
    openai_code = "upstream_timeout"


class ModelRefused(UpstreamError):
    """The service did not take what it was told within an interview. The interview goes on."""

    code = "MODEL_REFUSED"
    sentence = "The voice service refused that. The interview goes on."


class AtCapacity(InterviewPeerError):
    """As many interviews or sessions are held as this server takes."""

    code = "AT_CAPACITY"
    status = 503
    sentence = "This server is full just now. Please try again in a few minutes."
    openai_code = "rate_limit_exceeded"


class OutOfDescriptors(AtCapacity):
    """So many files and sockets are open that an interview more would have too few."""

    code = "OUT_OF_DESCRIPTORS"
    sentence = "This server can take no more interviews just now. Please try again in a minute."


class Draining(AtCapacity):
    """The server is about to stop, so no interview begins here; running ones go on."""

    code = "DRAINING"
    sentence = "This server is about to restart. Please try again in a few minutes."
    retry_after = 30


class DiskFull(AtCapacity):
    """Less space is free than a recording needs to begin; running interviews go on."""

    code = "DISK_FULL"
    sentence = "This server has no room for another recording just now. Please try again later."
    retry_after = 60


class ConnectTimeout(InterviewPeerError):
    """A leg was not connected within its deadline."""

    code = "CONNECT_TIMEOUT"
    status = 503
    sentence = (
        "The audio connection could not be made in time. "
        "A firewall may block it: try another network."
    )
    openai_code = "connect_timeout"


class StateUnavailable(InterviewPeerError):
    """The database is locked, lost or too slow. Trying again may help."""

    code = "STATE_UNAVAILABLE"
    status = 503
    sentence = "This server cannot reach its database just now. Please try again in a moment."
    openai_code = "state_unavailable"


class OwnerUnreachable(InterviewPeerError):
    """The server that holds the interview does not answer. It may again, or is given up soon."""

    code = "OWNER_UNREACHABLE"
    status = 503
    sentence = (
        "The server that holds this interview does not answer just now. "
        "Please try again in a moment."
    )
    openai_code = "owner_unreachable"


class KeysUnavailable(InterviewPeerError):
    """The keys that tokens are checked with cannot be fetched. Trying again may help."""

    code = "KEYS_UNAVAILABLE"
    status = 503
    sentence = "This server cannot check invitations just now. Please try again in a moment."
    openai_code = "keys_unavailable"


class StartFailed(InterviewPeerError):
    """Something around the server is in the way of its start, such as a port in use."""

    code = "START_FAILED"


class RecordingDamaged(InterviewPeerError):
    """A file of a recording is not what its manifest says. The operator must act."""

    code = "RECORDING_DAMAGED"
    status = 500
    sentence = (
        "This file is damaged: it is not what was recorded, so it is not handed out. "
        "Please tell whoever runs this server."
    )


class ManifestDamaged(RecordingDamaged):
    """A recording's manifest cannot be understood, so no file can be told to be whole."""

    code = "MANIFEST_DAMAGED"
    sentence = (
        "The list of this recording's files is damaged, so none of them is handed out. "
        "Please tell whoever runs this server."
    )


class RecordingFailed(InterviewPeerError):
    """A recording could not be finished. Its originals are kept, and it is tried again."""

    code = "RECORDING_FAILED"
    status = 503
    sentence = (
        "The recording could not be finished yet; what was recorded is kept and it is tried "
        "again. The server's log says why."
    )


class StoreUnavailable(InterviewPeerError):
    """The store of the recordings does not answer or refuses us, or a file cannot be read."""

    code = "STORE_UNAVAILABLE"
    status = 503
    sentence = "The recordings cannot be reached just now. Please try again later."


class RecordingElsewhere(StoreUnavailable):
    """The recording is in a store of earlier settings, out of reach now. The operator must act."""

    code = "RECORDING_ELSEWHERE"
    sentence = (
        "This recording is kept in a store that this server was set up with earlier, and that "
        "one cannot be reached with the present settings. Please tell whoever runs this server."
    )


class ConfigurationError(InterviewPeerError):
    """A setting is wrong or unknown; the sentence names it."""

    code = "CONFIGURATION"
