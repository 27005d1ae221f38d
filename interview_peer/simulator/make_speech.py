"""Speaks the interviewer's lines again: scripts.toml in, Ogg Opus files and index.json out.

A developer's tool, needed only after an edit of ``speech/scripts.toml``. It calls ``espeak-ng``
and ``ffmpeg``, which the product itself does not need::

    python -m interview_peer.simulator.make_speech
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from ..types import Json
from .library import SPEECH_FOLDER, opus_packets

BIT_RATE = "16k"
WORDS_PER_MINUTE = 165


def main() -> None:
    """Write every line's file and the index; old files of lines that are gone are removed."""
    folder = Path(str(SPEECH_FOLDER))
    source = tomllib.loads((folder / "scripts.toml").read_text(encoding="utf-8"))
    for old in folder.glob("*.ogg"):
        old.unlink()
    scripts = [_speak_script(folder, script) for script in source["scripts"]]
    index = {"licence": source["licence"], "scripts": scripts}
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    total = sum(path.stat().st_size for path in folder.glob("*.ogg"))
    sys.stdout.write(f"{total} bytes of speech\n")


def _speak_script(folder: Path, script: Json) -> Json:
    spoken = [("greeting", script["greeting"])]
    spoken += [("question", text) for text in script["questions"]]
    spoken.append(("closing", script["closing"]))
    lines = []
    for number, (role, text) in enumerate(spoken):
        name = f"{script['name']}-{number}-{role}.ogg"
        _speak(folder / name, text, script["voice"], script["pitch"])
        duration = 20 * len(opus_packets((folder / name).read_bytes()))
        lines.append({"file": name, "role": role, "text": text, "duration_ms": duration})
    return {"name": script["name"], "keywords": script["keywords"], "lines": lines}


def _speak(target: Path, text: str, voice: str, pitch: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "line.wav"
        speak = ["espeak-ng", "-v", voice, "-p", str(pitch), "-s", str(WORDS_PER_MINUTE)]
        subprocess.run([*speak, "-w", str(wav), text], check=True)
        # Bit-exact flags keep the encoder's version and a date out of the shipped files.
        encode = ["ffmpeg", "-loglevel", "error", "-y", "-i", str(wav), "-ac", "1", "-ar", "48000"]
        encode += ["-c:a", "libopus", "-application", "voip", "-frame_duration", "20"]
        encode += ["-b:a", BIT_RATE, "-map_metadata", "-1", "-fflags", "+bitexact"]
        subprocess.run([*encode, "-flags:a", "+bitexact", str(target)], check=True)


if __name__ == "__main__":
    main()
