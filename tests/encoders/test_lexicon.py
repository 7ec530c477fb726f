"""The Q-Former's lexicon: in training, out of the checkpoint and in the graph the same; whose Whisper it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from aligner.whisper_checkpoint import write_whisper
from auricle.export.aligner.checkpoint import load_aligner
from auricle.export.encoders.lexicon import LanguageModelTokens, has_lexicon, load_lexicon
from auricle.export.encoders.qformer import QFormerOptions, export_qformer, load_qformer
from auricle.export.graphs.onnx_graph import graph_info
from auricle.export.training.bridge import encode_views
from auricle.export.training.salmonn.write import trained_state
from auricle.export.training.shards import View
from auricle.export.training.small.bridge import Vocabulary
from auricle.export.training.small.lexicon import (
    LexicalBridge,
    hidden_states,
    lexicon_of,
    lexicon_state,
    restore_lexicon,
)
from auricle.models.encoders.beats import BeatsSpec
from auricle.models.encoders.qformer import AUDIO_INPUT, SPEECH_INPUT, QFormerSpec
from auricle.models.encoders.whisper import WhisperSpec
from auricle.models.errors import CheckpointError
from auricle.runtime.encoders.qformer import QFormer
from auricle.runtime.system.ort import OrtOptions, open_session
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

SPEC = QFormerSpec(16, 2, 32, 16, 8, 12, second_per_window=0.48, second_stride=0.16)
WHISPER, BEATS = WhisperSpec(16, 2, 2, 32), BeatsSpec(8, 1, 2, 16, 16)
LLM = LanguageModelTokens(lambda text: [ord(letter) % 20 for letter in text], torch.randn(20, 12))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("lexicon") / "whisper")


@pytest.fixture(scope="module")
def trained(whisper: Path) -> tuple[LexicalBridge, dict[str, Any]]:
    """A bridge in training, and what its checkpoint holds."""
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(whisper / "tokenizer.json"), clean_up_tokenization_spaces=False
    )
    vocabulary = Vocabulary.of(["turn on the lights", "it is three o'clock"], tokenizer)
    bridge = LexicalBridge(SPEC, lexicon_of(vocabulary, load_aligner(whisper).decoder, LLM)).eval()
    for weight in bridge.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return bridge, trained_state(bridge, {}) | lexicon_state(bridge.lexicon, vocabulary)


def test_training_checkpoint_and_graph_agree(
    whisper: Path, trained: tuple[LexicalBridge, dict[str, Any]], tmp_path: Path
) -> None:
    bridge, state = trained
    speech, audio = torch.randn(5 * 8, 16), torch.randn(35, 8)
    view = View(speech.numpy(), audio.numpy(), None, None)
    with torch.no_grad():
        expected = encode_views(bridge, [view])[0]
        words = bridge.lexicon.audio_tokens(hidden_states(bridge, [view])[0])
    assert len(expected) == 3  # windows of 24 frames, every 8
    assert words.std() > 0.1  # the lexicon says something
    lexicon = load_lexicon(state, whisper, LLM, 16, "salmonn.pth")
    options = QFormerOptions(2, 2, second_per_window=0.48, second_stride=0.16)
    loaded = load_qformer(state, WHISPER, BEATS, options, lexicon=lexicon)
    assert loaded.unknown_keys == ()
    heard = {SPEECH_INPUT: loaded.ln_speech(speech)[None], AUDIO_INPUT: loaded.ln_audio(audio)[None]}
    with torch.no_grad():
        found = [module(*heard.values())[0] for module in (loaded.reference, loaded.folded())]
    for each in found:
        torch.testing.assert_close(each, expected, rtol=1e-4, atol=1e-4)
    export_qformer(loaded.folded().eval(), tmp_path / "qformer.onnx")
    info = graph_info(tmp_path / "qformer.onnx")
    session = open_session(tmp_path / "qformer.onnx", info.inputs, info.outputs, OrtOptions("cpu", threads=1))
    tokens = QFormer(session).audio_tokens(*(value.detach().numpy() for value in heard.values()))
    np.testing.assert_allclose(tokens, expected.numpy(), rtol=1e-3, atol=1e-3)


def test_a_finished_lexicon_is_where_training_goes_on(
    whisper: Path, trained: tuple[LexicalBridge, dict[str, Any]], tmp_path: Path
) -> None:
    bridge, state = trained
    torch.save({"model": state}, tmp_path / "salmonn.pth")
    other = LexicalBridge(SPEC, type(bridge.lexicon)(bridge.lexicon.embeddings, bridge.lexicon.places))
    restore_lexicon(other.lexicon, tmp_path / "salmonn.pth")
    hidden = torch.randn(5, 16)
    torch.testing.assert_close(other.lexicon(hidden), bridge.lexicon(hidden))
    torch.save({"model": {key: value for key, value in state.items() if "blank" not in key}}, tmp_path / "salmonn.pth")
    with pytest.raises(CheckpointError, match=r"lexicon\.blank"):
        restore_lexicon(other.lexicon, tmp_path / "salmonn.pth")


def test_another_whisper_is_refused(
    whisper: Path, trained: tuple[LexicalBridge, dict[str, Any]], tmp_path: Path
) -> None:
    _, state = trained
    assert has_lexicon(state) and not has_lexicon({"speech_query_tokens": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="a lexicon of another Whisper than"):
        load_lexicon(state, whisper, LLM, 24, "salmonn.pth")
    weights = load_file(whisper / "model.safetensors")
    save_file({name: value for name, value in weights.items() if "encoder" in name}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="Whisper with its decoder"):
        load_lexicon(state, tmp_path, LLM, 16, "salmonn.pth")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing: give the model's whole directory"):
        load_lexicon(state, tmp_path, LLM, 16, "salmonn.pth")
