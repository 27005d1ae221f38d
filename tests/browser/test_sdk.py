"""OpenAI's own browser SDK, pointed here, works unchanged, is recorded, and is told no secret."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest

from interview_peer.types import Json
from tests.support import audio, speech
from tests.support.caller import calling
from tests.support.chromium import Browser, browsing
from tests.support.operator import KEY, Operator
from tests.support.server import ServerProcess, running_server, running_simulator
from tests.support.waiting import eventually

from . import dialogue
from .front_end import Received, bundled, front_end

SERVICE_KEY = "sk-marked-5Hk2xWq9LmT7"
JOIN_SECRET = "joining-marked-8Rt3vBn6YcPq1ZsXd4Fg"
INSTRUCTIONS = "Marked-instructions: ask about bridges, and keep to yourself that you were told so."
WISH = "Wish-of-the-page: praise whoever speaks."
KEYS = (SERVICE_KEY, JOIN_SECRET, KEY, "sk-marked")
MARK = "Marked-instructions"
ANSWER = "I built a small server for telephone calls in the mountains."


@pytest.fixture(scope="module")
def bundle(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SDK, installed and bundled. Before a browser is started, which would wait for it."""
    assert pytestconfig.cache is not None
    return bundled(pytestconfig.cache, tmp_path_factory.mktemp("sdk"))


@pytest.fixture
async def page_origin(bundle: Path) -> AsyncIterator[str]:
    async with front_end(bundle) as origin:
        yield origin


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with running_simulator(tmp_path / "simulator", key=SERVICE_KEY) as simulator:
        yield simulator


def personas(folder: Path) -> Path:
    """A folder in which the default interviewer has marked instructions."""
    folder.mkdir(parents=True)
    text = f'title = "Marked"\ndescription = "Marked."\ninstructions = "{INSTRUCTIONS}"\n'
    (folder / "default.toml").write_text(text, encoding="utf-8")
    return folder


def environment(service: ServerProcess, folder: Path, **settings: str) -> dict[str, str]:
    return {
        "SIMULATION_MODE": "false",
        "OPENAI_API_KEY": SERVICE_KEY,
        "OPENAI_BASE_URL": service.url,
        "INTERVIEW_ADMIN_KEY": KEY,
        "INTERVIEW_JOIN_SECRET": JOIN_SECRET,
        "INTERVIEW_PERSONAS_DIR": str(personas(folder / "personas")),
        **settings,
    }


async def begin(browser: Browser, server: ServerProcess, **options: object) -> str:
    """Connect as the SDK does; the id of the call."""
    url = f"{server.url}/v1/realtime/calls"
    call_id: str = await browser.page.evaluate(
        "(options) => front.begin(options)", {"url": url, "instructions": WISH, **options}
    )
    # Not by giving up on an acknowledgement that never came.
    assert await browser.ask("front.seen.connectedAfter") < 5000
    assert await browser.ask("front.status()") == "connected"
    return call_id


def counted(kind: str) -> str:
    return f"captured.events.filter((event) => event.type === '{kind}').length"


def spoken_by(role: str) -> str:
    return f"front.seen.history.some((one) => one.role === '{role}' && one.text.length > 10)"


async def test_the_sdk_holds_an_interview_with_a_key_that_a_back_end_asked_for(
    service: ServerProcess, page_origin: str, tmp_path: Path
) -> None:
    (said,) = speech.monologue([(4.0, ANSWER)])
    microphone = speech.write_wav(tmp_path / "candidate.wav", [said], tail=40)
    settings = environment(
        service,
        tmp_path,
        INTERVIEW_ALLOW_ANONYMOUS="false",
        INTERVIEW_ALLOWED_ORIGINS=page_origin,
    )
    async with (
        running_server(tmp_path / "server", **settings) as server,
        openai.AsyncOpenAI(api_key=KEY, base_url=server.url + "/v1") as back_end,
        calling(server.url) as caller,
        browsing(microphone) as browser,
    ):
        secret = await back_end.realtime.client_secrets.create(
            session={"type": "realtime", "instructions": INSTRUCTIONS},
            extra_body={"interview": {"consent": "given"}},
        )
        received = Received(browser.page, server.url)
        await browser.page.goto(page_origin)
        call_id = await begin(browser, server, apiKey=secret.value, insecure=False)

        # The interviewer greets; the candidate speaks into it, and is answered.
        await browser.until(f"{counted('output_audio_buffer.cleared')} >= 1", within=20)
        await browser.until(spoken_by("assistant"), within=20)
        await browser.until(spoken_by("user"), within=20)
        # The page interrupts what is said then.
        await browser.until(f"{counted('output_audio_buffer.started')} >= 2", within=20)
        before = await browser.ask(counted("output_audio_buffer.cleared"))
        await browser.ask("front.interrupt()")
        await browser.until(f"{counted('output_audio_buffer.cleared')} > {before}")
        heard = await browser.heard("remote")
        greeting = dialogue.beginning(dialogue.spoken(dialogue.GREETING), 3)
        assert audio.find(greeting, heard.samples).score > audio.SAME

        # A channel that the server closes is an error to it, so asked before. What it cancels may
        # be generated by then, though it still sounds.
        errors = await browser.ask("front.seen.errors")
        assert [one for one in errors if "response_cancel_not_active" not in one] == []

        async with openai.AsyncOpenAI(api_key=secret.value, base_url=server.url + "/v1") as own:
            await own.realtime.calls.hangup(call_id)
        await browser.until("front.status() === 'disconnected'")
        await browser.ask("front.close()")

        operator, made = Operator(caller), {"id": call_id.removeprefix("rtc_")}

        async def shown() -> Json:
            return await operator.show(made)

        ended = await eventually(
            shown, within=15, what="ended", good=lambda one: one["phase"] == "ended"
        )
        assert ended["reason"] == "client_request"
        assert {"candidate.ogg", "interviewer.ogg", "transcript.json"} <= set(ended["files"])
        told = await received.text()
        check(told, *KEYS, MARK)
        # Its wish to be another interviewer was heard by nobody.
        assert "Wish-of-the-page" not in told


async def test_the_sdk_works_without_a_key_on_a_server_that_is_open_to_all(
    service: ServerProcess, page_origin: str, tmp_path: Path
) -> None:
    microphone = speech.write_wav(tmp_path / "silence.wav", [], tail=40)
    async with (
        running_server(tmp_path / "server", **environment(service, tmp_path)) as server,
        browsing(microphone) as browser,
    ):
        received = Received(browser.page, server.url)
        await browser.page.goto(page_origin)
        call_id = await begin(browser, server, apiKey="anything", insecure=True)
        await browser.until(spoken_by("assistant"), within=20)
        assert await browser.ask("front.seen.errors") == []
        await browser.ask("front.close()")
        await eventually(
            lambda: server.phase(call_id.removeprefix("rtc_")),
            within=5,
            what="that the page has left",
            good=lambda phase: phase in ("detached", "ending", "ended"),
        )
        told = await received.text()
        check(told, *KEYS, MARK)
        # An open client may choose them, and is told what it chose.
        assert "Wish-of-the-page" in told


def check(told: str, *secrets: str) -> None:
    """That nothing of what a page was told is a secret."""
    # The search sees what came each way: SDP, and events.
    assert "v=0\\r\\n" in told and "session.created" in told
    assert [secret for secret in secrets if secret in told] == []
