"""Silero VAD: the numbers of its authors' own code, a state that is a value, and what it tells apart."""

from __future__ import annotations

import hashlib
import json
import re
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE, Waveform
from auricle.models.errors import BundleError, RunError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import Engine
from auricle.runtime.live import silero
from auricle.runtime.live.gate import GateOptions
from auricle.runtime.live.segmenter import open_gate
from auricle.runtime.live.silero import CONTEXT_LENGTH, FRAME_LENGTH, SileroVad, VadState, shared_vad

MODELS = Path(str(resources.files("auricle.models")))
CLIPS = MODELS / "demo" / "clips"


@pytest.fixture(scope="module")
def vad() -> SileroVad:
    return SileroVad()


def probabilities(vad: SileroVad, waveform: Waveform) -> list[float]:
    state = vad.create_state()
    found: list[float] = []
    for at in range(0, len(waveform) - FRAME_LENGTH + 1, FRAME_LENGTH):
        (probability,), state = vad.step(waveform[at : at + FRAME_LENGTH], state)
        found.append(probability)
    return found


def test_as_the_authors_own_graph(vad: SileroVad, golden: Path) -> None:
    """silero_jfk.json: computed by silero_vad_16k_op15.onnx of silero-vad 6.2.3 on the same recording."""
    found = probabilities(vad, read_audio(golden / "jfk.wav"))
    expected = json.loads((Path(__file__).parent / "silero_jfk.json").read_text())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    first = [0.0017, 0.0846, 0.302, 0.1335, 0.0832, 0.0435, 0.0554, 0.0527, 0.0313, 0.0376, 0.3433, 0.946, 0.9329]
    np.testing.assert_allclose(found[:13], first, atol=2e-3)  # their OnnxWrapper


@pytest.mark.parametrize("n", [2, 3, 5, 32, 33, 343])
def test_many_frames_at_once_are_the_same_frames(vad: SileroVad, golden: Path, n: int) -> None:
    waveform = read_audio(golden / "jfk.wav")
    whole = waveform[: 343 * FRAME_LENGTH]
    state = vad.create_state()
    found: list[float] = []
    for at in range(0, len(whole), n * FRAME_LENGTH):
        some, state = vad.step(whole[at : at + n * FRAME_LENGTH], state)
        found += some
    np.testing.assert_allclose(found, probabilities(vad, waveform), rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", ["command", "reminder", "speech-over-rain", "speech-over-dog", "unseen-voice"])
def test_speech_is_heard(vad: SileroVad, name: str) -> None:
    found = np.array(probabilities(vad, read_audio(CLIPS / f"{name}.wav")))
    assert (found > 0.5).mean() > 0.5


def sounds() -> dict[str, Waveform]:
    noise = np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE).astype(np.float32)
    hum = 0.3 * np.sin(2 * np.pi * 50 * np.arange(10 * SAMPLE_RATE) / SAMPLE_RATE)
    return {
        "digital silence": np.zeros(10 * SAMPLE_RATE, np.float32),
        "a quiet room": 0.001 * noise,
        "noise": 0.1 * noise,
        "loud noise": 0.3 * noise,
        "hum": hum.astype(np.float32),
    }


@pytest.mark.parametrize("name", sounds())
def test_other_sound_is_no_speech(vad: SileroVad, name: str) -> None:
    assert max(probabilities(vad, sounds()[name])) < 0.5


@pytest.mark.parametrize("name", ["birds", "siren"])
def test_birds_and_sirens_are_no_speech(vad: SileroVad, name: str) -> None:
    assert np.mean(np.array(probabilities(vad, read_audio(CLIPS / f"{name}.wav"))) > 0.5) < 0.1


def test_streams_share_the_graph_and_keep_their_states(vad: SileroVad, golden: Path) -> None:
    speech = read_audio(golden / "jfk.wav", max_seconds=3)
    other = read_audio(CLIPS / "command.wav", max_seconds=1.5)
    alone = probabilities(vad, speech)
    a, b = vad.create_state(), vad.create_state()
    found: list[float] = []
    for at in range(0, len(speech) - FRAME_LENGTH + 1, FRAME_LENGTH):
        _, b = vad.step(other[at % 20_480 :][:FRAME_LENGTH], b)
        (probability,), a = vad.step(speech[at : at + FRAME_LENGTH], a)
        found.append(probability)
    assert found == alone


def test_a_state_is_never_changed(vad: SileroVad, golden: Path) -> None:
    frames = read_audio(golden / "jfk.wav")[8000:].copy()
    first, state = vad.step(frames[:FRAME_LENGTH], vad.create_state())
    kept = VadState((state.lstm[0].copy(), state.lstm[1].copy()), state.context.copy())
    second = vad.step(frames[FRAME_LENGTH : 2 * FRAME_LENGTH], state)[0]
    frames[:] = 0
    assert np.array_equal(state.lstm, kept.lstm) and np.array_equal(state.context, kept.context)
    assert state.context.shape == (CONTEXT_LENGTH,)
    assert first != second


def test_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing: install Auricle again"):
        SileroVad(tmp_path / "none.onnx")
    (tmp_path / "spoilt.onnx").write_bytes(b"not a graph")
    with pytest.raises(BundleError, match=r"spoilt\.onnx cannot be opened by onnxruntime"):
        SileroVad(tmp_path / "spoilt.onnx")
    vad = SileroVad()
    with pytest.raises(ValueError, match="frames are 512 samples each, and there are 160"):
        vad.step(np.zeros(160, np.float32), vad.create_state())
    vad.close()
    vad.close()
    with pytest.raises(RunError, match="was closed"):
        vad.step(np.zeros(FRAME_LENGTH, np.float32), vad.create_state())


def test_the_graph_is_the_one_its_readme_names() -> None:
    digest = hashlib.sha256((MODELS / "vad" / "silero_vad_frames.onnx").read_bytes()).hexdigest()
    named = re.search(r"\b[0-9a-f]{64}\b", (MODELS / "vad" / "README.md").read_text("utf-8"))
    assert named and named[0] == digest
    assert "MIT License" in (MODELS / "vad" / "LICENSE").read_text("utf-8")


def test_streams_share_one_graph_each_with_its_state(vad: SileroVad, monkeypatch: pytest.MonkeyPatch) -> None:
    speech = read_audio(CLIPS / "command.wav")
    shared = shared_vad()

    def opened(*_: object, **__: object) -> None:
        raise AssertionError("a second graph was opened")

    monkeypatch.setattr(silero.ort, "InferenceSession", opened)
    states = [shared_vad().create_state(), shared_vad().create_state()]
    found: list[list[float]] = [[], []]
    for at in range(0, len(speech) - FRAME_LENGTH + 1, FRAME_LENGTH):
        for n, frame in enumerate((speech[at : at + FRAME_LENGTH], np.zeros(FRAME_LENGTH, np.float32))):
            (probability,), states[n] = shared.step(frame, states[n])
            found[n].append(probability)
    assert found == [probabilities(vad, speech), probabilities(vad, np.zeros(len(speech), np.float32))]
    for _ in range(2):
        open_gate(cast(Engine, SimpleNamespace(spec=SimpleNamespace(seconds=10.0))), GateOptions(), vad=True)
