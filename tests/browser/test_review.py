"""The review page in a real Chromium: it plays, follows, jumps, and says what is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Route, expect

from interview_peer.app import Server
from interview_peer.finishing.job import finish
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import Json
from tests.recording.folders import SECONDS, ignore, record
from tests.support.chromium import Browser, browsing
from tests.support.inprocess import serving

KEY = "operator-key-of-no-worth"
CONTROLS = "a[href], button, input, select, textarea, summary, [tabindex='0']"

TURNS = [
    ("interviewer", "What did you build last?", 1.2, 1.4, "complete"),
    ("candidate", "A bridge <b>over</b> the river.", 3.0, 3.2, "complete"),
    ("interviewer", "How long did that", 4.4, 4.6, "interrupted"),
    ("candidate", "", 6.2, 6.4, "failed"),
    ("interviewer", "Thank you, that is all.", 7.2, 7.4, "complete"),
]
"""Each begins at a mark in the sound of its speaker."""


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with one finished interview."""
    root = tmp_path_factory.mktemp("review")
    folder = record(root, "one")
    folder.write_json(
        "transcript.json",
        {
            "schema": 2,
            "session_id": "one",
            "started_at": "2026-01-01T12:00:00.000Z",
            "turns": [
                {
                    "item_id": f"item-{index}",
                    "speaker": speaker,
                    "text": text,
                    "kind": "speech",
                    "start_ms": round(start * 1000),
                    "end_ms": round(end * 1000),
                    "status": status,
                    "heard_ms": None,
                    "heard_text": None,
                    "estimated": False,
                }
                for index, (speaker, text, start, end, status) in enumerate(TURNS)
            ],
        },
    )
    finish(folder, ignore)
    return root


@pytest.fixture
async def local(source: Path) -> AsyncIterator[Server]:
    """A server that asks for no key."""
    async with serving(source) as server:
        yield server


@contextlib.asynccontextmanager
async def reviewing(
    server: Server, viewport: tuple[int, int] = (1280, 900)
) -> AsyncIterator[Browser]:
    """The page with that interview open, ready to play."""
    async with browsing(None, viewport=viewport) as browser:
        await browser.page.goto(f"{server.url}/static/review.html?id=one")
        await ready(browser)
        yield browser


async def ready(browser: Browser) -> None:
    await browser.until("interviewReview.state.soundReady && interviewReview.state.turnsKnown")
    await browser.until("interviewReview.state.peaks !== null")


async def position(browser: Browser) -> float:
    return float(await browser.ask("interviewReview.audio.currentTime"))


async def current(browser: Browser) -> list[int]:
    """Which turns are marked as the one that sounds."""
    marked: list[int] = await browser.ask(
        "[...document.querySelectorAll('.turn')].flatMap((turn, index) =>"
        " turn.getAttribute('aria-current') === 'true' ? [index] : [])"
    )
    return marked


async def test_a_browser_reads_the_captions_as_they_were_meant(local: Server) -> None:
    async with reviewing(local) as browser:
        cues = await browser.ask(
            """new Promise(async (resolve, reject) => {
              const file = await fetch("/api/interviews/one/transcript.vtt");
              const track = document.createElement("track");
              track.kind = "captions";
              track.onload = () => resolve([...track.track.cues].map((cue) => {
                const voice = cue.getCueAsHTML().querySelector("span");
                return [voice.title, voice.textContent, cue.startTime, cue.endTime];
              }));
              track.onerror = () => reject(new Error("not a track"));
              interviewReview.audio.append(track);
              track.src = URL.createObjectURL(await file.blob());
              track.track.mode = "hidden";
            })"""
        )
    assert cues == [
        ["Interviewer", "What did you build last?", 1.2, 1.4],
        ["Candidate", "A bridge <b>over</b> the river.", 3.0, 3.2],
        ["Interviewer", "How long did that [interrupted]", 4.4, 4.6],
        ["Candidate", "[not transcribed]", 6.2, 6.4],
        ["Interviewer", "Thank you, that is all.", 7.2, 7.4],
    ]


async def test_the_page_plays_and_the_transcript_follows(local: Server) -> None:
    async with reviewing(local) as browser:
        assert await browser.ask("interviewReview.state.length") == pytest.approx(SECONDS, abs=0.05)
        facts = await browser.page.locator("#facts").inner_text()
        assert facts.endswith("; ended by the candidate")
        assert await current(browser) == []
        await browser.ask(
            "window.followed = [], new MutationObserver(() => {"
            " const turns = [...document.querySelectorAll('.turn')];"
            " const at = turns.findIndex((turn) => turn.hasAttribute('aria-current'));"
            " if (at !== window.followed.at(-1)?.[0])"
            " window.followed.push([at, interviewReview.audio.currentTime]);"
            "}).observe(document.querySelector('#turns'),"
            " {subtree: true, attributes: true, attributeFilter: ['aria-current']}), null"
        )
        await browser.page.get_by_role("button", name="Play").click()
        await browser.until("interviewReview.audio.ended", within=30)
        followed: list[list[float]] = await browser.ask("followed")
        assert [turn for turn, _ in followed] == [0, 1, 2, 3, 4]
        for (_, at), (_, _, start, _, _) in zip(followed, TURNS, strict=True):
            assert start - 0.1 <= at <= start + 1.0, "a slow machine draws late, never early"
        await expect(browser.page.get_by_role("button", name="Play")).to_be_visible()
        # Once more from the start.
        await browser.page.get_by_role("button", name="Play").click()
        await browser.until("!interviewReview.audio.ended && interviewReview.state.playing")


async def test_a_turn_jumps_to_its_sound(local: Server) -> None:
    async with reviewing(local) as browser:
        for index in (3, 1, 4):
            start = TURNS[index][2]
            await browser.page.locator(".turn").nth(index).click()
            await browser.until(f"interviewReview.audio.currentTime >= {start}")
            assert await position(browser) < start + 1.5
            await browser.until(f"interviewReview.state.current >= {index}")
            assert await browser.ask("!interviewReview.audio.paused")
            await browser.page.get_by_role("button", name="Pause").click()
            await browser.until("!interviewReview.state.playing")


async def test_it_is_played_by_keyboard_alone(local: Server) -> None:
    async with reviewing(local) as browser:
        page = browser.page
        slider = page.get_by_role("slider", name="Position in the recording")
        await slider.focus()
        for key, expected in (
            ("ArrowRight", 5.0),
            ("ArrowLeft", 0.0),
            ("ArrowUp", 5.0),
            ("End", SECONDS),
            ("PageDown", 0.0),
            ("PageUp", SECONDS),
            ("Home", 0.0),
        ):
            await page.keyboard.press(key)
            await browser.until(f"Math.abs(interviewReview.audio.currentTime - {expected}) < 0.05")
        assert await slider.get_attribute("aria-valuetext") == "0:00 of 0:08"
        await page.keyboard.press("Space")
        await browser.until("interviewReview.state.playing && interviewReview.state.position > 0.1")
        await page.keyboard.press("Space")
        await browser.until("!interviewReview.state.playing")
        # Away from every control the same keys work, and in a control they are its own.
        await page.locator("#transcript-heading").focus()
        before = await position(browser)
        await page.keyboard.press("ArrowRight")
        await browser.until(f"interviewReview.audio.currentTime > {before + 4}")
        await page.locator("#speed").focus()
        at = await position(browser)
        await page.keyboard.press("ArrowRight")
        assert await position(browser) == at


async def test_the_waveforms_show_who_spoke_when_and_take_clicks(local: Server) -> None:
    async with reviewing(local) as browser:
        # The height of what is drawn at a place of a lane, as a share of the lane.
        height = """([lane, at]) => {
            const canvas = document.querySelector(lane);
            const x = Math.round(at / interviewReview.state.length * canvas.width);
            const pixels = canvas.getContext('2d')
                .getImageData(Math.max(x - 4, 0), 0, 8, canvas.height).data;
            let rows = 0;
            for (let y = 0; y < canvas.height; y += 1) {
                let seen = false;
                for (let i = 0; i < 8; i += 1) seen ||= pixels[(y * 8 + i) * 4 + 3] > 0;
                rows += seen;
            }
            return rows / canvas.height;
        }"""
        lanes = {"candidate": (3.1, 6.3), "interviewer": (1.3, 4.5)}
        for lane, loud in lanes.items():
            for other, places in lanes.items():
                for at in places:
                    drawn = await browser.page.evaluate(height, [f"#lane-{lane}", at])
                    if lane == other:
                        assert drawn > 0.4, (lane, at, loud)
                    else:
                        assert drawn < 0.25, (lane, at)
        box = await browser.page.locator("#lane-interviewer").bounding_box()
        assert box is not None
        await browser.page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 10)
        await browser.until(f"Math.abs(interviewReview.audio.currentTime - {SECONDS * 0.75}) < 0.1")


@pytest.mark.parametrize(
    ("which", "marks", "quiet"),
    [("candidate", (3.0, 6.2), 5.0), ("mixed", (3.0, 4.4, 6.2), 2.2)],
)
async def test_chromium_plays_a_sound_from_its_address_and_seeks_in_it(
    local: Server, which: str, marks: tuple[float, ...], quiet: float
) -> None:
    async with browsing(None) as browser:
        page = browser.page
        statuses: list[int] = []
        page.on(
            "response",
            lambda answer: statuses.append(answer.status) if "/recording/" in answer.url else None,
        )
        await page.goto(f"{local.url}/static/review.html")
        duration = await page.evaluate(
            """async (path) => {
                const sound = window.sound = new Audio(path);
                await new Promise((resolve, reject) => {
                    sound.onloadedmetadata = resolve;
                    sound.onerror = () => reject(new Error(sound.error.message));
                });
                const context = window.context = new AudioContext();
                await context.resume();
                window.meter = context.createAnalyser();
                window.meter.fftSize = 2048;
                context.createMediaElementSource(sound).connect(window.meter);
                window.meter.connect(context.destination);
                return sound.duration;
            }""",
            f"/api/interviews/one/recording/{which}",
        )
        assert duration == pytest.approx(SECONDS, abs=0.05)
        loudness = """async (at) => {
            const block = new Float32Array(2048);
            sound.currentTime = at;
            await new Promise((resolve) => { sound.onseeked = resolve; });
            await sound.play();
            let loudest = 0;
            while (sound.currentTime < at + 0.5 && !sound.ended) {
                await new Promise((resolve) => setTimeout(resolve, 10));
                meter.getFloatTimeDomainData(block);
                loudest = Math.max(loudest, ...block.map(Math.abs));
            }
            sound.pause();
            return loudest;
        }"""
        # Forwards and back again: each place has the sound that belongs there.
        for at in (*marks, *reversed(marks)):
            assert await page.evaluate(loudness, at - 0.1) > 0.15, at
            assert await page.evaluate(loudness, quiet) < 0.05
        assert statuses and set(statuses) == {206}


async def test_the_key_is_asked_for_and_stays_in_this_tab(source: Path) -> None:
    async with serving(source, admin_key=KEY) as server, browsing(None) as browser:
        page = browser.page
        await page.goto(f"{server.url}/static/review.html?id=one")
        await browser.until("interviewReview.state.keyWanted")
        alert = page.get_by_role("alert")
        await expect(page.locator("#waiting")).to_contain_text("asks for the operator's key")
        await expect(alert).to_have_text("")
        assert await browser.ask("document.activeElement.id") == "operator-key"
        await page.keyboard.type("wrong")
        await page.keyboard.press("Enter")
        await expect(alert).to_contain_text("This path needs the operator's key. Enter the key")
        assert await browser.ask("sessionStorage.length") == 0
        await page.get_by_label("Operator's key").fill(KEY)
        await page.keyboard.press("Enter")
        await ready(browser)
        await expect(alert).to_have_text("")
        assert await browser.ask("Object.values(sessionStorage).join()") == KEY
        assert await browser.ask("localStorage.length + document.cookie.length") == 0
        assert KEY not in page.url
        assert KEY not in await page.content()
        assert await page.get_by_label("Operator's key").input_value() == ""
        # A reload of this tab opens it again; another tab has to ask.
        await page.reload()
        await ready(browser)
        other = await page.context.new_page()
        await other.goto(page.url)
        await expect(other.locator("#waiting")).to_contain_text("operator's key")
        await page.get_by_role("button", name="Forget the key").click()
        await browser.until("interviewReview.state.stage === 'asking'")
        assert await browser.ask("sessionStorage.length") == 0


async def test_files_can_be_downloaded(local: Server, source: Path, tmp_path: Path) -> None:
    folder = source / "interviews" / "one"
    async with reviewing(local) as browser:
        for name in ("mixed.webm", "candidate.ogg", "interviewer.ogg", "transcript.json"):
            async with browser.page.expect_download() as coming:
                await browser.page.locator(f"[data-file='{name}']").click()
            file = await coming.value
            assert file.suggested_filename == f"one-{name}"
            await file.save_as(tmp_path / name)
            assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


async def test_words_of_the_transcript_are_shown_as_text(local: Server) -> None:
    async with reviewing(local) as browser:
        words = browser.page.locator(".turn").nth(1)
        await expect(words).to_contain_text("A bridge <b>over</b> the river.")
        assert await browser.page.locator("#turns b").count() == 0
        await expect(browser.page.locator(".turn").nth(2)).to_contain_text("interrupted")
        await expect(browser.page.locator(".turn").nth(3)).to_contain_text("not understood")


@pytest.mark.parametrize("width", [360, 1280])
async def test_every_control_has_a_name_and_room_and_is_reached_by_tab(
    local: Server, width: int
) -> None:
    async with reviewing(local, (width, 740)) as browser:
        assert await browser.ask("document.documentElement.scrollWidth") <= width
        small = await browser.ask(
            "[...document.querySelectorAll('button, select, summary, label.check')].filter("
            "(one) => one.checkVisibility() && one.getBoundingClientRect().height < 44)"
            ".map((one) => one.outerHTML)"
        )
        assert small == [], "too small for a finger"
        snapshot = await browser.page.locator("body").aria_snapshot()
        nameless = [
            line
            for line in snapshot.splitlines()
            if line.strip().rstrip(":") in ("- button", "- slider", "- checkbox", "- combobox")
        ]
        assert nameless == []
        shown = await browser.ask(
            f"[...document.querySelectorAll({CONTROLS!r})].filter("
            "(one) => one.checkVisibility() && !one.disabled).length"
        )
        await browser.ask(
            "document.activeElement.blur(), window.reached = new Set(),"
            " document.addEventListener('focusin', (event) => reached.add(event.target)), null"
        )
        await browser.page.locator(".skip").focus()
        for _ in range(shown):
            await browser.page.keyboard.press("Tab")
        assert await browser.ask("reached.size") == shown


@pytest.mark.parametrize(
    ("id_", "sentence"),
    [
        ("nobody", "There is no such session."),
        ("no id", "A session id is 1 to 64"),
    ],
)
async def test_a_wrong_id_is_told_in_a_sentence(local: Server, id_: str, sentence: str) -> None:
    async with browsing(None) as browser:
        page = browser.page
        await page.goto(f"{local.url}/static/review.html")
        await page.get_by_role("button", name="Open the recording").click()
        await expect(page.get_by_role("alert")).to_contain_text("Which interview?")
        await page.get_by_label("Interview", exact=True).fill(id_)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text(sentence)
        await expect(page.get_by_role("alert")).to_contain_text("Check the interview's id.")


@contextlib.asynccontextmanager
async def a_copy(source: Path, root: Path) -> AsyncIterator[tuple[Server, InterviewFolder]]:
    """A server with an interview of its own, to be spoilt."""
    folder = record(root, "one")
    finish(folder, ignore)
    async with serving(root) as server:
        yield server, folder


async def test_damage_is_told_and_the_rest_can_still_be_read(source: Path, tmp_path: Path) -> None:
    async with a_copy(source, tmp_path) as (server, folder):
        path = folder.path / "mixed.webm"
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
        async with browsing(None) as browser:
            await browser.page.goto(f"{server.url}/static/review.html?id=one")
            await expect(browser.page.get_by_role("alert")).to_contain_text("This file is damaged")
            await browser.until("interviewReview.state.turnsKnown")
            await expect(browser.page.locator("#turns")).to_contain_text("Bridges.")
            assert await browser.page.get_by_role("button", name="Play").is_disabled()


async def test_a_recording_that_is_not_ready_appears_by_itself(
    source: Path, tmp_path: Path
) -> None:
    async with a_copy(source, tmp_path) as (server, folder):
        manifest = folder.path / "manifest.json"
        hidden = manifest.rename(folder.path / ".manifest")
        async with browsing(None) as browser:
            page = browser.page
            await page.goto(f"{server.url}/static/review.html?id=one")
            await expect(page.locator("#waiting")).to_contain_text(
                "The recording is being finished."
            )
            hidden.rename(manifest)
            await ready(browser)
            await expect(page.locator("#waiting")).to_have_text("")


async def test_an_erased_recording_says_so(source: Path, tmp_path: Path) -> None:
    async with a_copy(source, tmp_path) as (server, _), browsing(None) as browser:
        page = browser.page
        await page.goto(f"{server.url}/static/review.html?id=one")
        await ready(browser)
        deleted: Json = await page.evaluate(
            "fetch('/api/interviews/one', {method: 'DELETE'}).then((answer) => answer.json())"
        )
        assert deleted["complete"] is True
        await page.reload()
        await expect(page.get_by_role("alert")).to_contain_text("has been erased")


async def looks(browser: Browser, url: str, listing: dict[str, object]) -> list[str]:
    """Answer every look for the list of recordings with ``listing``; returns the looks so far."""
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        await route.fulfill(json=listing)

    await browser.page.route("**/api/interviews/one/recording", answer)
    await browser.page.clock.install(time=0)
    await browser.page.clock.pause_at(1)
    await browser.page.goto(f"{url}/static/review.html?id=one")
    await browser.until("interviewReview.state.stage === 'waiting'")
    return asked


def unready(state: str, **more: object) -> dict[str, object]:
    return {
        "id": "one",
        "state": state,
        "code": None,
        "message": None,
        "finishing": {"state": "running", "progress": 0.25},
        "files": [],
        **more,
    }


async def test_while_nothing_changes_the_page_asks_less_and_less_often(local: Server) -> None:
    async with browsing(None) as browser:
        listing = unready("finishing")
        asked = await looks(browser, local.url, listing)
        pauses: list[int] = []
        for look in range(1, 10):
            await browser.until(f"interviewReview.state.looks === {look}")
            assert len(asked) == look
            pauses.append(int(await browser.ask("interviewReview.state.lookIn")))
            await browser.page.clock.run_for(pauses[-1] - 1)
            assert len(asked) == look
            await browser.page.clock.run_for(1)
        assert pauses == [2000, 3000, 4500, 6750, 10125, 15188, 22782, 30000, 30000]
        await browser.until("interviewReview.state.looks === 10")
        # News make it look at once again.
        listing["finishing"] = {"state": "running", "progress": 0.5}
        await browser.page.clock.run_for(30_000)
        await expect(browser.page.locator("#waiting")).to_contain_text("50 % is done")
        assert await browser.ask("interviewReview.state.lookIn") == 2000


@pytest.mark.parametrize("state", ["failed", "damaged"])
async def test_where_nothing_more_will_come_the_page_says_so_and_asks_no_more(
    local: Server, state: str
) -> None:
    async with browsing(None) as browser:
        sentence = "The list of this recording's files is damaged."
        listing = unready(state, code="SOME_CODE", message=sentence)
        asked = await looks(browser, local.url, listing)
        await expect(browser.page.locator("#waiting")).to_have_text(sentence)
        await expect(browser.page.locator("#badge-word")).to_have_text("Not available")
        assert await browser.ask("interviewReview.state.lookIn") is None
        await browser.page.clock.run_for(600_000)
        assert len(asked) == 1
        # A person may ask again.
        await browser.page.get_by_role("button", name="Open the recording").click()
        await expect(browser.page.locator("#badge-word")).to_have_text("Not available")
        assert len(asked) == 2


async def test_an_original_that_was_damaged_is_named_and_can_be_had_as_it_is(
    tmp_path: Path,
) -> None:
    folder = record(tmp_path, "one")
    path = folder.path / "candidate.ogg"
    data = bytearray(path.read_bytes())
    data[9_000] ^= 0xFF
    path.write_bytes(data)
    finish(folder, ignore)
    async with serving(tmp_path) as server, reviewing(server) as browser:
        page = browser.page
        await expect(page.locator("#damage")).to_have_text(
            "Candidate's voice was damaged when it was recorded: what is missing is silent."
        )
        button = page.locator("[data-file='candidate.ogg']")
        await expect(button).to_contain_text("damaged")
        async with page.expect_download() as coming:
            await button.click()
        await (await coming.value).save_as(tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == bytes(data)
