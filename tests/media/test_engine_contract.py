"""What the engine relies on in aiortc, aioice and pylibsrtp beyond what they promise.

When one of the three is updated and this fails, the sentence says what moved and what the engine
wanted it for. Mend ``media/engine.py``, then the table here, then ``TESTED_VERSIONS``.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.metadata
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioice.candidate
import aioice.ice
import aioice.stun
import aiortc.rtcsctptransport
import pylibsrtp
import pytest
from aiortc import RTCBundlePolicy, RTCConfiguration, RTCPeerConnection
from pylibsrtp._binding import ffi, lib

import interview_peer
from interview_peer.errors import ConfigurationError
from interview_peer.media import engine
from tests.media.legs import connected, packets_of, until
from tests.support.inprocess import serving

PACKAGE = Path(interview_peer.__file__).parent
ENGINE = PACKAGE / "media" / "engine.py"

SRTP_CALL = "srtp_err_status_t(*)(struct srtp_ctx_t_ *, void *, int *)"


@dataclass(frozen=True)
class Reliance:
    """One name the engine uses, what it must be, and what for."""

    owner: str
    """Which of the objects of ``owners``."""
    name: str
    form: str
    """A signature, beginning with a bracket (after ``async`` for a coroutine); or a type name."""
    use: str


TABLE = [
    Reliance("RTCRtpSender", "_ssrc", "int", "writes it into every packet it sends"),
    Reliance("RTCRtpSender", "send", "async (parameters)", "replaces it, so that no task runs"),
    Reliance("RTCRtpReceiver", "receive", "async (parameters)", "replaces it: no decoder thread"),
    Reliance("RTCRtpSender", "transport", "RTCDtlsTransport", "takes DTLS and SRTP from it"),
    Reliance("RTCDtlsTransport", "_role", "str", "looks whether the role is still open"),
    Reliance("RTCDtlsTransport", "_set_role", "(role)", "becomes DTLS server towards browsers"),
    Reliance("RTCDtlsTransport", "_rx_srtp", "NoneType", "decrypts with it once connected"),
    Reliance("RTCDtlsTransport", "_tx_srtp", "NoneType", "encrypts with it once connected"),
    Reliance("RTCDtlsTransport", "transport", "RTCIceTransport", "hears when ICE fails"),
    Reliance("RTCSctpTransport", "_advertised_rwnd", "int", "takes in events beyond 1 MiB"),
    Reliance("RTCSctpTransport", "_receive_chunk", "async (chunk)", "stands before it"),
    Reliance("RTCSctpTransport", "_send_chunk", "async (chunk)", "minds an end in the middle"),
    Reliance("RTCSctpTransport", "_inbound_streams", "dict", "bounds streams and fragments"),
    Reliance("RTCSctpTransport", "_data_channels", "dict", "bounds channels"),
    Reliance("RTCSctpTransport", "_last_received_tsn", "NoneType", "knows which chunk is next"),
    Reliance("RTCSctpTransport", "_sack_misordered", "set", "bounds what came out of order"),
    Reliance("RTCSctpTransport", "_local_tsn", "int", "knows what can be acknowledged"),
    Reliance("RTCIceTransport", "_recv", "async ()", "reads records turn by turn"),
    Reliance("RTCIceGatherer", "_connection", "Connection", "puts its own socket below ICE"),
    Reliance("Connection", "_local_username", "str", "sets its own long fragment"),
    Reliance("Connection", "local_username", "str", "must announce the fragment that was set"),
    Reliance("Connection", "local_password", "str", "verifies checks that come in"),
    Reliance("Connection", "remote_password", "NoneType", "signs checks of its own"),
    Reliance("Connection", "_nominated", "dict", "learns from it where to send"),
    Reliance("Connection", "_protocols", "list", "adds the protocol on its own socket"),
    Reliance("Connection", "_queue", "Queue", "bounds what waits for DTLS"),
    Reliance(
        "Connection",
        "get_component_candidates",
        "async (component, addresses, timeout=5)",
        "replaces it, so that no other socket is opened",
    ),
    Reliance("Connection", "get_event", "async ()", "keeps aiortc from asking a closed one again"),
    Reliance("Connection", "build_request", "(pair, nominate)", "makes checks of its own"),
    Reliance("Connection", "data_received", "(data, component)", "hands DTLS to aiortc"),
    Reliance(
        "Connection", "request_received", "(message, addr, protocol)", "has aioice answer checks"
    ),
    Reliance("aioice.ice", "StunProtocol", "(receiver)", "makes one for its own socket"),
    Reliance("StunProtocol", "connection_made", "(transport)", "gives it the shared transport"),
    Reliance("StunProtocol", "connection_lost", "(exc)", "ends it when aioice closes"),
    Reliance("StunProtocol", "datagram_received", "(data, addr)", "hands it responses"),
    Reliance("StunProtocol", "send_stun", "(message, addr)", "sends checks of its own"),
    Reliance(
        "aioice.ice", "CandidatePair", "(protocol, remote_candidate)", "follows a new address"
    ),
    Reliance("CandidatePair", "remote_addr", "tuple", "reads where the nominated pair leads"),
    Reliance("CandidatePair", "state", "State", "marks a pair it has verified itself"),
    Reliance("CandidatePair", "nominated", "bool", "marks a pair it has verified itself"),
    Reliance("aioice.stun", "parse_message", "(data)", "reads checks before aioice does"),
    Reliance("Message", "check_message_integrity", "(key)", "answers nobody unverified"),
    Reliance("Message", "add_message_integrity", "(key)", "signs checks of its own"),
    Reliance("Session", "_srtp", "struct srtp_ctx_t_ * *", "calls libsrtp without a copy"),
    Reliance("pylibsrtp._binding", "ffi", "FFI", "points libsrtp at its own buffer"),
    Reliance("pylibsrtp._binding", "lib", "Lib", "calls libsrtp without a copy"),
    Reliance("lib", "srtp_protect", SRTP_CALL, "encrypts in place"),
    Reliance("lib", "srtp_unprotect", SRTP_CALL, "decrypts in place"),
    Reliance("aiortc.rtcsctptransport", "decode_params", "(body)", "closes an endless loop in it"),
    Reliance("aiortc.rtcsctptransport", "parse_packet", "(data)", "keeps its errors in bounds"),
    Reliance(
        "aiortc.rtcsctptransport",
        "serialize_packet",
        "(source_port, destination_port, verification_tag, chunk)",
        "gives an INIT its tag",
    ),
    Reliance("aiortc.rtcsctptransport", "InboundStream", "()", "puts large messages together"),
    Reliance("InboundStream", "reassembly", "list", "looks whether a fragment came last"),
    Reliance("InboundStream", "add_chunk", "(chunk)", "notes fragments in order"),
    Reliance("InboundStream", "pop_messages", "()", "spares the search where none is whole"),
    Reliance("Connection", "connect", "async ()", "notes the task that awaits it"),
]


@pytest.fixture
async def owners() -> AsyncIterator[dict[str, Any]]:
    """The objects of a fresh peer connection, and the modules, by the names in ``TABLE``."""
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    transceiver = pc.addTransceiver("audio")
    pc.createDataChannel("events")
    dtls = transceiver.sender.transport
    gatherer = dtls.transport.iceGatherer
    ice = gatherer._connection
    protocol = aioice.ice.StunProtocol(ice)
    candidate = aioice.candidate.Candidate("f", 1, "udp", 1, "192.0.2.1", 9, "host")
    yield {
        "RTCRtpSender": transceiver.sender,
        "RTCRtpReceiver": transceiver.receiver,
        "RTCDtlsTransport": dtls,
        "RTCSctpTransport": pc.sctp,
        "InboundStream": aiortc.rtcsctptransport.InboundStream(),
        "RTCIceTransport": dtls.transport,
        "RTCIceGatherer": gatherer,
        "Connection": ice,
        "StunProtocol": protocol,
        "CandidatePair": aioice.ice.CandidatePair(protocol, candidate),
        "Message": aioice.stun.Message(aioice.stun.Method.BINDING, aioice.stun.Class.REQUEST),
        "Session": pylibsrtp.Session(),
        "aioice.ice": aioice.ice,
        "aioice.stun": aioice.stun,
        "aiortc.rtcsctptransport": aiortc.rtcsctptransport,
        "pylibsrtp._binding": pylibsrtp._binding,
        "lib": lib,
    }
    await pc.close()


def form_of(value: object) -> str:
    """A signature without annotations, or the name of a type."""
    if isinstance(value, ffi.CData) or type(value).__name__ == "builtin_function_or_method":
        return str(ffi.typeof(value).cname)
    if not callable(value):
        return type(value).__name__
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(value).parameters.values()
    ]
    kind = "async " if inspect.iscoroutinefunction(value) else ""
    return kind + str(inspect.Signature(plain))


def complaint(reliance: Reliance, owner: object) -> str | None:
    """A sentence on what moved, if it did."""
    wanted = f"{reliance.owner}.{reliance.name}"
    try:
        value = getattr(owner, reliance.name)
    except AttributeError:
        return f"{wanted} is gone; the engine {reliance.use}."
    found = form_of(value)
    if found != reliance.form:
        return f"{wanted} is now {found}, was {reliance.form}; the engine {reliance.use}."
    return None


@pytest.mark.parametrize("reliance", TABLE, ids=lambda entry: f"{entry.owner}.{entry.name}")
def test_what_the_engine_uses_is_where_it_was(reliance: Reliance, owners: dict[str, Any]) -> None:
    assert complaint(reliance, owners[reliance.owner]) is None


def test_complaint_says_what_moved_in_a_sentence() -> None:
    class Moved:
        def _set_role(self, role: str, force: bool) -> None: ...

    gone = Reliance("RTCDtlsTransport", "_role", "str", "looks at it")
    other = Reliance("RTCDtlsTransport", "_set_role", "(role)", "becomes DTLS server")
    assert complaint(gone, Moved()) == "RTCDtlsTransport._role is gone; the engine looks at it."
    assert complaint(other, Moved()) == (
        "RTCDtlsTransport._set_role is now (role, force), was (role); "
        "the engine becomes DTLS server."
    )


# -- the table is complete ----------------------------------------------------------------------


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def foreign_names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Private names in a module that it did not make: attributes, strings, imports."""
    own = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    } | {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("self", "cls")
    }
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    # Arguments that are declared to be of a class of this module: their privates are its own.
    kin = {
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in node.args.args
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id in classes
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            base = node.value.id if isinstance(node.value, ast.Name) else None
            if not (base in {"self", "cls", *classes, *kin} and node.attr in own):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "setattr", "delattr", "hasattr"):
                for argument in node.args[1:2]:
                    if isinstance(argument, ast.Constant) and private(str(argument.value)):
                        yield node.lineno, str(argument.value)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            path = (node.module or "").split(".")
            for alias in node.names:
                if any(private(part) for part in [*path, alias.name]):
                    yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if any(private(part) for part in alias.name.split(".")):
                    yield node.lineno, alias.name


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def test_every_private_name_the_engine_touches_is_in_the_table() -> None:
    listed = {reliance.name for reliance in TABLE} | {
        f"{reliance.owner}.{reliance.name}" for reliance in TABLE
    }
    missing = [
        f"engine.py:{line} uses {name}"
        for line, name in foreign_names(parsed(ENGINE))
        if name not in listed
    ]
    assert missing == []


def test_no_private_name_in_the_table_is_unused() -> None:
    used = {name.split(".")[-1] for _, name in foreign_names(parsed(ENGINE))}
    assert [entry.name for entry in TABLE if private(entry.name) and entry.name not in used] == []


def test_no_other_module_touches_a_private_name_of_these_libraries() -> None:
    libraries = ("aiortc", "aioice", "pylibsrtp")
    ours = {entry.name for entry in TABLE if private(entry.name)}
    breaches = []
    for path in PACKAGE.rglob("*.py"):
        if path == ENGINE:
            continue
        tree = parsed(path)
        in_media = path.parent == ENGINE.parent
        for line, name in foreign_names(tree):
            if in_media or name in ours or name.split(".")[0] in libraries:
                breaches.append(f"{path.name}:{line} uses {name}")
    assert breaches == []


@pytest.mark.parametrize(
    "source",
    [
        "class E:\n    def f(self):\n        self.ice._new_name",
        "def f(dtls):\n    dtls._ssl.export_keying_material(b'', 1)",
        "class E:\n    def f(self):\n        self._inherited",
        "class E:\n    def f(self, other):\n        self._x = 1\n        other._x",
        "def f(pc):\n    getattr(pc, '_RTCPeerConnection__sctp')",
        "from pylibsrtp._binding import ffi",
        "from aiortc.rtp import _secret",
        "import pylibsrtp._binding",
    ],
)
def test_search_sees_a_private_name(source: str) -> None:
    assert len(list(foreign_names(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "class E:\n    def __init__(self):\n        self._x = 1\n        self._x",
        "class E:\n    def f(self, other: E):\n        self._x = other._x",
        "class E:\n    def _f(self):\n        self._f()",
        "from __future__ import annotations",
        "x.__class__",
    ],
)
def test_search_passes_over_a_modules_own_names(source: str) -> None:
    assert list(foreign_names(ast.parse(source))) == []


# -- versions -----------------------------------------------------------------------------------


def test_installed_versions_are_the_tested_ones() -> None:
    installed = {name: importlib.metadata.version(name) for name in engine.TESTED_VERSIONS}
    assert installed == engine.TESTED_VERSIONS
    engine.check_versions()


@pytest.mark.parametrize("package", ["aiortc", "aioice", "pylibsrtp"])
def test_start_is_refused_on_a_version_never_tried(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99.1" if name == package else real(name)
    )
    with pytest.raises(ConfigurationError) as caught:
        engine.check_versions()
    sentence = caught.value.message
    assert sentence.startswith(f"{package} 99.1 is installed")
    assert engine.TESTED_VERSIONS[package] in sentence


async def test_server_does_not_start_on_a_version_never_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.TESTED_VERSIONS, "aioice", "0.0.1")
    with pytest.raises(ConfigurationError, match="install aioice==0.0.1"):
        async with serving(tmp_path):
            pass


# -- what it does together ------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES128_CM_SHA1_80"])
def test_packet_goes_through_libsrtp_in_place_at_an_offset(profile: str) -> None:
    number = getattr(pylibsrtp.Policy, f"SRTP_PROFILE_{profile}")

    def session(kind: int) -> Any:
        policy = pylibsrtp.Policy(key=bytes(range(64)), ssrc_type=kind, srtp_profile=number)
        return pylibsrtp.Session(policy)

    sending = session(pylibsrtp.Policy.SSRC_ANY_OUTBOUND)
    receiving = session(pylibsrtp.Policy.SSRC_ANY_INBOUND)
    packet = b"\x80\x6f\x00\x01\x00\x00\x03\xc0\x01\x02\x03\x04" + b"speech" * 20
    offset, room = 17, 200
    buffer = bytearray(b"\xaa" * (offset + len(packet) + room))
    buffer[offset : offset + len(packet)] = packet
    pointer, length = ffi.from_buffer(buffer), ffi.new("int *")
    length[0] = len(packet)

    assert lib.srtp_protect(sending._srtp[0], pointer + offset, length) == 0
    grown = length[0] - len(packet)
    assert 0 < grown <= engine.SRTP_TRAILER_BYTES
    assert buffer[offset + 12 : offset + len(packet)] != packet[12:]
    assert buffer[:offset] == b"\xaa" * offset
    assert set(buffer[offset + length[0] :]) == {0xAA}
    changed = bytearray(buffer)
    changed[offset + 20] ^= 1

    assert lib.srtp_unprotect(receiving._srtp[0], ffi.from_buffer(changed) + offset, length) != 0
    length[0] = len(packet) + grown
    assert lib.srtp_unprotect(receiving._srtp[0], pointer + offset, length) == 0
    assert length[0] == len(packet)
    assert buffer[offset : offset + len(packet)] == packet
    # The same packet again does not come through: aiortc lets repeats out, never in.
    assert lib.srtp_unprotect(receiving._srtp[0], pointer + offset, length) != 0


@pytest.mark.parametrize("dtls_server", [True, False])
async def test_two_peers_connect_through_the_hooks(
    dtls_server: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Any] = []
    queued: list[tuple[bytes, int]] = []

    async def register(parameters: Any) -> None:
        registered.append(parameters)

    monkeypatch.setattr(engine, "_register_nothing", register)
    answers: list[str] = []

    def keep(answer: str) -> str:
        answers.append(answer)
        return answer

    async with connected(dtls_server=dtls_server, change_answer=keep) as ends:
        # Each end awaits its sender and its receiver, once.
        assert len(registered) == 4
        assert ("a=setup:passive" if dtls_server else "a=setup:active") in answers[0]

        for leg, other in ((ends.near, ends.far), (ends.far, ends.near)):
            ssl = leg.engine._dtls._ssl
            assert ssl.get_selected_srtp_profile() == b"SRTP_AEAD_AES_256_GCM"
            assert leg.engine.remote == other.port.address
            # One socket, ours: aioice has opened none.
            (protocol,) = leg.engine._ice._protocols
            assert type(protocol.transport) is engine._SharedTransport
            assert leg.engine._ice.local_username == leg.engine.ufrag
            # Keying material exports: what a forwarder outside Python would start from.
            assert len(ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 88)) == 88

        ice = ends.far.engine._ice
        monkeypatch.setattr(ice, "data_received", counted(ice.data_received, queued))
        heard = packets_of(ends.far)
        assert ends.near.send_audio(1, 960, b"payload", marker=True)
        await until(lambda: heard, "the packet at the far end")
        assert heard[0][12:] == b"payload"
        media = [data for data, _ in queued if data[0] > 127]
        assert media == [], "media must not pass through aioice's queue"

        assert not [thread.name for thread in threading.enumerate() if "decoder" in thread.name]
        running = " ".join(str(task.get_coro()) for task in asyncio.all_tasks())
        assert "_run_rtp" not in running
        assert "_run_rtcp" not in running


@pytest.mark.parametrize(
    ("dtls_server", "profile"),
    [(True, b"SRTP_AEAD_AES_256_GCM"), (False, b"SRTP_AES128_CM_SHA1_80")],
)
async def test_as_dtls_server_our_preference_of_cipher_decides(
    dtls_server: bool, profile: bytes
) -> None:
    # Browsers put AES-CM with SHA-1 first.
    async with connected(dtls_server=dtls_server, srtp_profiles_reversed=True) as ends:
        for leg in (ends.near, ends.far):
            assert leg.engine._dtls._ssl.get_selected_srtp_profile() == profile


async def test_channel_of_the_hooked_peers_carries_text_both_ways() -> None:
    async with connected() as ends:
        ends.near.send_text('{"type":"up"}')
        ends.far.send_text('{"type":"down"}')
        await until(lambda: ends.near_heard.messages and ends.far_heard.messages, "both messages")
        assert ends.far_heard.messages == ['{"type":"up"}']
        assert ends.near_heard.messages == ['{"type":"down"}']


def counted(function: Callable[..., Any], calls: list[Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        calls.append(args)
        return function(*args)

    return call


async def test_replaced_methods_are_the_ones_that_run() -> None:
    async with connected() as ends:
        far = ends.far.engine
        responses: list[Any] = []
        assert far._protocol is not None
        far.stun_response = counted(far.stun_response, responses)  # type: ignore[method-assign]
        far.check()
        await until(lambda: responses, "the response to a check of ours")
        # The table of nominated pairs still is the one that tells.
        pair = far._ice._nominated[1]
        far.remote = None
        far._ice._nominated[1] = pair
        assert far.remote == ends.near.port.address
