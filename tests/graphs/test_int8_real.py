"""A trained Whisper in int8: all of its layers, near the float graph on a voice that it was not calibrated on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from auricle.export.encoders.whisper import export_whisper, load_whisper
from auricle.export.graphs.int8 import to_int8
from auricle.export.graphs.onnx_graph import compare, run_graph
from auricle.export.parity import calibration_clips
from auricle.models.encoders.whisper import INPUT, log_mel
from auricle.runtime.audio.decode import read_audio
from real_weights import TINY_EN
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

pytestmark = TINY_EN.needed
JFK = Path(__file__).parents[1] / "golden" / "jfk.wav"
BOUND = 0.05  # measured 0.03


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "whisper.onnx"
    spec, encoder = load_whisper(TINY_EN.folder)
    export_whisper(encoder, torch.nn.Identity(), spec, path)  # pyright: ignore[reportArgumentType]
    return path


def test_the_exported_encoder_is_transformers_own(tiny: Path) -> None:
    """In 30 s windows; for shorter ones its positions are cut, which transformers does by max_source_positions."""
    spec, encoder = load_whisper(TINY_EN.folder)
    window = log_mel(read_audio(JFK), spec)
    with torch.no_grad():
        wanted = encoder(torch.from_numpy(window)).last_hidden_state.numpy()
    assert compare(run_graph(tiny, {INPUT: window})[0], wanted)[1] < 1e-4
    config = WhisperConfig.from_dict(encoder.config.to_dict() | {"max_source_positions": 500})
    short = WhisperEncoder(config).eval()
    state = encoder.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:500]
    short.load_state_dict(state)
    with torch.no_grad():
        wanted = short(torch.from_numpy(window[..., :1000])).last_hidden_state.numpy()
    assert compare(run_graph(tiny, {INPUT: window[..., :1000]})[0], wanted)[1] < 1e-4


def test_int8_takes_every_layer_and_stays_near_float_on_a_new_voice(tiny: Path, tmp_path: Path) -> None:
    spec = load_whisper(TINY_EN.folder)[0]
    heard = calibration_clips(spec.n_samples)[1:]  # all but jfk, which is in the last, under noise
    feeds = [{INPUT: log_mel(clip, spec)} for clip in heard[:-1]]
    report = to_int8(tiny, tmp_path / "int8.onnx", feeds, 0.1)
    assert report.float_layers == () and report.n_layers == 29
    window = {INPUT: log_mel(read_audio(JFK), spec)}
    made, wanted = (run_graph(path, window)[0] for path in (tmp_path / "int8.onnx", tiny))
    assert 0 < compare(made, wanted)[1] < BOUND
    assert np.isfinite(made).all()
