"""A SALMONN whose Whisper was trained on clips alone, or on short ones: the manifest says so and all follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
from auricle.export.__main__ import main
from auricle.models.audio import synthetic_clip
from auricle.models.bundle import read_manifest
from auricle.models.families.salmonn import SalmonnSpec
from auricle.runtime.engine import load
from auricle.runtime.events import Final
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.sources.playback import FilePlayback
from conftest import export_arguments


def test_the_clip_alone_is_heard_everywhere(golden_bundle: Path, tmp_path: Path) -> None:
    assert main(export_arguments(tmp_path / "bundle", hears="clip", lora="merged")) == 0  # parity is measured that way
    spec = read_manifest(tmp_path / "bundle").spec
    assert isinstance(spec, SalmonnSpec) and spec.hears == "clip"
    clip = synthetic_clip(7, 2.0)
    with load(golden_bundle) as padded, load(tmp_path / "bundle") as alone:
        assert len(padded.encode(clip).audio_tokens) > len(alone.encode(clip).audio_tokens)
        same = ((padded.encode(clip, short=True), alone.encode(clip)), (padded.encode(clip), alone.encode(clip, False)))
        for one, other in same:
            np.testing.assert_array_equal(one.audio_tokens, other.audio_tokens)
        n_tokens = len(alone.encode(clip).audio_tokens)
        assert alone.ask(clip, "asr").segments[0].timings.n_audio_tokens == n_tokens
        assert alone.encoders.stages(clip)["audio_tokens"].shape[-2] == n_tokens
        events = captions(FilePlayback(clip, "fast"), alone, LiveOptions(vad=False))
        assert [event.timings.n_audio_tokens for event in events if isinstance(event, Final)] == [n_tokens]


def test_a_window_shorter_than_whispers_is_all_that_is_heard(
    golden_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(export_arguments(tmp_path / "bundle", longest_seconds="2", lora="merged")) == 0
    spec = read_manifest(tmp_path / "bundle").spec
    assert isinstance(spec, SalmonnSpec) and (spec.seconds, spec.whisper.n_positions) == (2.0, 100)
    clip = synthetic_clip(7, 1.5)
    with load(golden_bundle) as whole, load(tmp_path / "bundle") as short:
        assert len(short.encode(clip).audio_tokens) == spec.n_audio_tokens < len(whole.encode(clip).audio_tokens)
        alone = [engine.encode(clip, short=True).audio_tokens for engine in (whole, short)]
        np.testing.assert_array_equal(alone[0], alone[1])
    assert main(export_arguments(tmp_path / "other", longest_seconds="31")) == 2
    assert "--longest-seconds 31 should be at most" in capsys.readouterr().err
