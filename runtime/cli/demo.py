"""`auricle demo`: the clips that come with the bundle -> their answers, with times."""

from __future__ import annotations

import json
import time
from typing import Any

from ...models.errors import InputError
from ..engine import Engine
from .answers import timing_line
from .options import ModelOptions, open_engine


def demo(options: ModelOptions) -> int:
    """Answers from the clips that are shipped with the demo bundle."""
    started = time.perf_counter()
    with open_engine(options) as engine:
        clips = _demo_clips(engine)
        print(f"{engine.bundle.manifest.name} ready in {time.perf_counter() - started:.2f} s\n")
        for clip in clips:
            _show_clip(engine, clip)
    return 0


def _show_clip(engine: Engine, clip: dict[str, Any]) -> None:
    """Prompt, answer and what was expected; where words go with the clip, the answer without them too."""
    path = engine.bundle.path("clips") / clip["file"]
    print(f"{clip['file']}\n  prompt   {clip['prompt']}")
    if keywords := clip.get("keywords", ()):
        engine.keywords = ()
        print(f"  unlisted {engine.ask(path, clip['prompt']).text}\n  keywords {', '.join(keywords)}")
    engine.keywords = tuple(keywords)
    answer = engine.ask(path, clip["prompt"])
    doubt = "" if all(final.confident for final in answer.segments) else " (?)"
    print(f"  answer   {answer.text}{doubt}\n  expected {clip['expected']}")
    for final in answer.segments:
        print(f"  {timing_line(final)}")
    print()


def _demo_clips(engine: Engine) -> list[dict[str, Any]]:
    path = engine.bundle.path("clips") / "clips.json"
    if not path.is_file():
        raise InputError(f"{engine.bundle.directory} has no clips of its own: use `auricle ask AUDIO PROMPT`")
    return json.loads(path.read_text(encoding="utf-8"))
