"""Pictures of the page of `auricle serve`, with the demo's clips as its microphone -> docs/images/page-*.png.

AURICLE_BROWSERS=build/browsers .venv/bin/python scripts/page-pictures.py        (scripts/browsers.sh brings them)
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIPS = ROOT / "models/demo/clips"
DRIVER = ROOT / "tests/server/page/browser.mjs"
OUT = ROOT / "docs/images"
SPOKEN = ("command", "weather", "shopping", "reminder") * 3
PAUSE_S, RATE = 1.2, 16_000
QUESTIONS = ("asr", "audio_speech_description")
MAX_BYTES = 100_000


def speech(path: Path, names: tuple[str, ...]) -> Path:
    """The clips one after the other, with a pause before each."""
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, RATE, 0, "NONE", ""))
        for name in names:
            with wave.open(str(CLIPS / f"{name}.wav")) as clip:
                out.writeframes(bytes(round(PAUSE_S * RATE) * 2) + clip.readframes(clip.getnframes()))
    return path


def main() -> int:
    OUT.mkdir(exist_ok=True)
    serve = [sys.executable, "-m", "auricle.runtime", "serve", "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1].removesuffix("v1")
            given = {
                "url": url,
                "chromium": shutil.which("chromium"),
                "out": str(OUT),
                "clip": str(speech(Path(folder, "microphone.wav"), SPOKEN)),
                "recording": str(speech(Path(folder, "errands.wav"), SPOKEN[:4])),
                "file": str(CLIPS / "speech-over-rain.wav"),
                "questions": QUESTIONS,
            }
            subprocess.run(["node", str(DRIVER), "pictures", json.dumps(given)], check=True)
        finally:
            server.terminate()
    large = [path.name for path in OUT.glob("page-*.png") if path.stat().st_size > MAX_BYTES]
    print(f"{OUT}: {', '.join(sorted(path.name for path in OUT.glob('page-*.png')))}")
    return 1 if large else 0


if __name__ == "__main__":
    raise SystemExit(main())
