"""The shipped demo model answers its own clips, on words: what every newcomer sees first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.bundle import read_manifest, shipped_bundle
from auricle.models.errors import BundleError
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import open_bundle
from auricle.runtime.engine import Engine, load
from auricle.runtime.llm.sampling import Generation

CLIPS = shipped_bundle() / "clips"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


def shipped() -> list[dict[str, Any]]:
    return json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))


def test_most_shipped_clips_are_answered_word_for_word(engine: Engine) -> None:
    """They were chosen by kind, not by whether the model gets them right; the sounds it must."""
    right = {c["file"]: engine.ask(CLIPS / c["file"], c["prompt"]).text == c["expected"] for c in shipped()}
    assert sum(right.values()) >= 8, right
    assert all(right[c["file"]] for c in shipped() if c["task"] == "audiocaption"), right


def test_beams_say_the_same_on_a_clear_clip(engine: Engine) -> None:
    clip = next(c for c in shipped() if c["task"] == "asr")
    answer = engine.ask(CLIPS / clip["file"], clip["prompt"], Generation(max_new_tokens=40, beams=4))
    assert answer.text == clip["expected"]


def test_it_knows_what_it_does_not_understand(engine: Engine, golden: Path) -> None:
    """A person's speech, of other words than its own."""
    speech = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"]
    assert not any(segment.confident for segment in engine.ask(speech, "asr").segments)
    clip = next(c for c in shipped() if c["task"] == "asr")
    assert all(segment.confident for segment in engine.ask(CLIPS / clip["file"], "asr").segments)


def test_several_commands_in_a_row_are_all_heard(engine: Engine) -> None:
    """Longer than the demo's window of 10 s: cut at the pauses, two or three commands a segment."""
    spoken = [c for c in shipped() if c["task"] == "asr"]
    pause = np.zeros(16_000, np.float32)
    waveform = np.concatenate([part for c in spoken * 3 for part in (read_audio(CLIPS / c["file"]), pause)])
    answer = engine.ask(waveform, "asr")
    wanted = " ".join(c["expected"] for c in spoken * 3).split()
    heard = " ".join(segment.text for segment in answer.segments).split()
    assert len(answer.segments) > 1
    assert abs(len(heard) - len(wanted)) <= 0.2 * len(wanted)
    assert sum(word in heard for word in wanted) >= 0.8 * len(wanted)


def test_bundle_is_small_and_checks_out_here(capsys: pytest.CaptureFixture[str]) -> None:
    bundle = shipped_bundle()
    assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) <= 25_000_000
    assert read_manifest(bundle).quantization.encoders == "int8"
    assert main(["verify", "--run"]) == 0
    assert "WRONG" not in capsys.readouterr().out


def test_demo_command_shows_every_clip_with_its_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    said = capsys.readouterr().out
    for clip in shipped():
        assert clip["prompt"] in said
        assert clip["expected"] in said
    assert "encoders" in said


def test_readme_states_what_was_measured() -> None:
    text = (Path(str(shipped_bundle())) / "README.md").read_text(encoding="utf-8")
    assert "make demo-eval" in text
    assert "synthetic" in text


class TestSecondDemo:
    """The one that takes listed words: `--bundle demo-salm`."""

    def test_it_is_small_and_checks_out_here(self, capsys: pytest.CaptureFixture[str]) -> None:
        bundle = shipped_bundle("demo-salm")
        assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) <= 20_000_000
        manifest = read_manifest(bundle)
        assert manifest.family == "salm" and manifest.quantization.encoders == "int8"
        assert main(["verify", "demo-salm", "--run"]) == 0
        assert "WRONG" not in capsys.readouterr().out

    def test_listed_words_are_written_as_they_are_listed(self) -> None:
        """Of the shipped clips, with the lists that go with them, and with the name alone."""
        with load("demo-salm") as salm:
            clips = json.loads((salm.bundle.path("clips") / "clips.json").read_text(encoding="utf-8"))
            found: dict[str, int] = {"none": 0, "list": 0, "alone": 0}
            for clip in clips:
                (name,) = set(clip["keywords"]) & set(clip["expected"].split())
                for kind, listed in (("none", ()), ("list", tuple(clip["keywords"])), ("alone", (name,))):
                    salm.keywords = listed
                    found[kind] += name in salm.ask(salm.bundle.path("clips") / clip["file"], "asr").text.split()
        assert found["none"] <= 1 < 3 <= found["list"] <= found["alone"]

    def test_the_demo_command_shows_both_answers(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["demo", "--bundle", "demo-salm"]) == 0
        said = capsys.readouterr().out
        assert said.count("unlisted") == said.count("keywords") == 6

    def test_the_command_line_takes_keywords(self, capsys: pytest.CaptureFixture[str]) -> None:
        clips = json.loads((shipped_bundle("demo-salm") / "clips" / "clips.json").read_text(encoding="utf-8"))
        clip = str(shipped_bundle("demo-salm") / "clips" / clips[4]["file"])
        (name,) = set(clips[4]["keywords"]) & set(clips[4]["expected"].split())
        assert main(["ask", clip, "asr", "--bundle", "demo-salm", "--keywords", name]) == 0
        assert name in capsys.readouterr().out
        assert main(["listen", clip, "--pace", "fast", "--bundle", "demo-salm", "--keywords", name]) == 0
        assert name in capsys.readouterr().out

    def test_a_directory_of_that_name_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert open_bundle("demo-salm").directory == shipped_bundle("demo-salm")
        (tmp_path / "demo-salm").mkdir()
        with pytest.raises(BundleError, match=r"manifest\.json"):
            open_bundle("demo-salm")
