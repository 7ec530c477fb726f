"""The aligner's export: its graphs against transformers, what a bundle with one says, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from auricle.export.__main__ import main
from auricle.export.aligner.part import AlignerPart
from auricle.export.graphs.onnx_graph import run_graph
from auricle.models.aligner import CROSS, DECODER, ENCODER, PAST, STAGES, TOKENS, VOCABULARY_FILE
from auricle.models.audio import synthetic_clip
from auricle.models.bundle import file_entry, read_manifest
from auricle.models.dataclass_json import encode
from auricle.models.encoders.whisper import INPUT, log_mel
from auricle.models.errors import BundleError, CheckpointError
from auricle.runtime.__main__ import main as auricle
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.bundle import open_bundle
from auricle.runtime.engine import load
from auricle.runtime.llm.llama import Model
from conftest import export_arguments, salm_arguments
from real_weights import BASE, TINY_EN, RealWeights
from transformers import WhisperForConditionalGeneration

from .whisper_checkpoint import HEADS, as_hugging_face, write_whisper


def graphs_of(part: AlignerPart, folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.onnx" for name in part.spec.graphs}
    for name, path in paths.items():
        part.write(name, path)
    return paths


def fix_length(graph: Path, sizes: dict[str, int]) -> None:
    """A graph whose free axes are free no more."""
    import onnx

    model = onnx.load(str(graph))
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del model.graph.value_info[:]
    onnx.save(model, str(graph))


def require_same(part: AlignerPart, model: WhisperForConditionalGeneration, folder: Path, mel: np.ndarray) -> None:
    """Logits and attention of a text in one pass, and token after token with the cache, within 1e-4."""
    paths = graphs_of(part, folder)
    rng = np.random.default_rng(0)
    ids = [part.spec.tokens.start, *rng.integers(0, part.spec.tokens.end, 9).tolist()]
    model.config._attn_implementation = "eager"
    with torch.no_grad():
        expected = model(
            input_features=torch.from_numpy(mel), decoder_input_ids=torch.tensor([ids]), output_attentions=True
        )
    attended = torch.stack([expected.cross_attentions[layer][0, head] for layer, head in part.spec.heads])
    (cross,) = run_graph(paths[ENCODER], {INPUT: mel})
    past = np.zeros((2 * part.spec.decoder.n_layers, 0, part.spec.encoder.d_model), np.float32)
    logits, scores, _ = run_graph(paths[DECODER], {TOKENS: np.array([ids], np.float32), PAST: past, CROSS: cross})
    scale = float(expected.logits.abs().max())
    np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=0, atol=1e-4 * max(1.0, scale))
    np.testing.assert_allclose(torch.from_numpy(scores).softmax(2).numpy(), attended.numpy(), rtol=0, atol=1e-4)
    for at, token in enumerate(ids):
        step, _, past = run_graph(
            paths[DECODER], {TOKENS: np.full((1, 1), token, np.float32), PAST: past, CROSS: cross}
        )
        np.testing.assert_allclose(step[0, 0], logits[0, at], rtol=0, atol=1e-4 * max(1.0, scale))


def test_random_weights_compute_what_transformers_computes(tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "whisper")
    part = AlignerPart(folder)
    assert part.spec.heads == tuple(map(tuple, HEADS)) and part.spec.tokens.languages == {}
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    require_same(part, model, tmp_path, log_mel(synthetic_clip(3, 2.0), part.spec.encoder))


@TINY_EN.needed
def test_trained_weights_compute_what_transformers_computes(tmp_path: Path, golden: Path) -> None:
    part = AlignerPart(TINY_EN.folder)
    model = as_hugging_face(TINY_EN.folder, tmp_path / "hf")
    require_same(part, model, tmp_path, log_mel(read_audio(golden / "jfk.wav"), part.spec.encoder))
    theirs = AlignerPart(tmp_path / "hf").spec
    assert (theirs.encoder, theirs.decoder) == (part.spec.encoder, part.spec.decoder)
    assert theirs.tokens.start == part.spec.tokens.start == 50257


def test_a_language_is_asked_for_where_there_are_several(tmp_path: Path) -> None:
    tokens = AlignerPart(write_whisper(tmp_path, multilingual=True)).spec.tokens
    assert tokens.languages.keys() == {"en", "de"}
    assert tokens.prompt(tokens.languages["de"]) == (
        tokens.start,
        tokens.languages["de"],
        tokens.transcribe,
        tokens.no_timestamps,
    )
    assert {5, 7, tokens.start, tokens.no_timestamps, tokens.transcribe} <= {*tokens.suppressed}
    assert tokens.suppressed_first == (9,) and tokens.end not in tokens.suppressed


@pytest.mark.parametrize("arguments", [export_arguments, salm_arguments], ids=["salmonn", "salm"])
def test_a_bundle_of_any_family_takes_one(arguments: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert main(arguments(out, aligner=str(write_whisper(tmp_path / "whisper")))) == 0
    manifest = read_manifest(out)
    assert manifest.aligner is not None and manifest.aligner.heads == tuple(map(tuple, HEADS))
    assert {*manifest.aligner.files} <= {entry.path for entry in manifest.files}
    assert manifest.parity and manifest.self_check
    errors = {stage.stage: stage.relative_rms for stage in manifest.parity.stages}
    assert max(errors[name] for name in STAGES) < 1e-4
    assert {source.name for source in manifest.provenance.sources if source.role == "aligner"} >= {"tokenizer.json"}
    assert any("Whisper" in licence for licence in manifest.licences)
    capsys.readouterr()
    assert auricle(["verify", "--run", str(out)]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in STAGES)
    (out / VOCABULARY_FILE).unlink()
    with pytest.raises(BundleError, match=VOCABULARY_FILE):
        open_bundle(out)


def test_int8_rounds_the_embedding_too(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert main(export_arguments(out, aligner=str(write_whisper(tmp_path / "whisper")), encoders="int8")) == 0
    import onnx

    graph = onnx.load(str(out / f"{DECODER}.onnx")).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert kinds["embedding/int8"] == onnx.TensorProto.INT8 and "embedding" not in kinds
    with load(out) as engine:
        assert engine.aligner.words(synthetic_clip(1, 2.0), "turn on the lights")


def test_older_manifests_have_none(golden_bundle: Path, tmp_path: Path) -> None:
    for entry in golden_bundle.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    manifest = json.loads((golden_bundle / "manifest.json").read_text(encoding="utf-8"))
    del manifest["aligner"]
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert read_manifest(tmp_path).aligner is None


def test_words_are_found_in_a_clip_alone_and_in_its_window_by_older_bundles(tmp_path: Path) -> None:
    out, older = tmp_path / "bundle", tmp_path / "older"
    assert main(export_arguments(out, aligner=str(write_whisper(tmp_path / "whisper")))) == 0
    shutil.copytree(out, older)
    aligner = read_manifest(out).aligner
    assert aligner is not None
    whole = aligner.encoder.n_positions
    fix_length(older / f"{ENCODER}.onnx", {"mel_frames": 2 * whole, "n_positions": whole})
    manifest = json.loads((older / "manifest.json").read_text(encoding="utf-8"))
    del manifest["aligner"]["any_length"]
    listed = (encode(file_entry(older, entry["path"])) for entry in manifest["files"])
    (older / "manifest.json").write_text(json.dumps({**manifest, "files": [*listed]}), encoding="utf-8")
    heard: dict[Path, list[int]] = {}
    for folder in (out, older):
        with load(folder) as engine:
            decode = engine.aligner._decode  # pyright: ignore[reportPrivateUsage]
            lengths = heard.setdefault(folder, [])

            def noting(ids: Any, past: Any, cross: Any, lengths: list[int] = lengths, decode: Any = decode) -> Any:
                lengths.append(cross.shape()[1])
                return decode(ids, past, cross)

            engine.aligner._decode = noting  # pyright: ignore[reportPrivateUsage]
            words, support = engine.aligner.align(synthetic_clip(1, 0.6), "turn on the lights", True, True)
            assert len(words) == 4 and words[-1].end_s <= 0.6 and support is not None
    assert heard[out][0] == 81 < whole and {*heard[out][1:]} == {whole} == {*heard[older]}


def test_its_tokenizer_is_llama_cpps_too(tmp_path: Path) -> None:
    import tokenizers

    part = AlignerPart(write_whisper(tmp_path / "whisper"))
    part.write_vocabulary(tmp_path / VOCABULARY_FILE)
    vocabulary = Model(tmp_path / VOCABULARY_FILE, 0, vocab_only=True)
    reference = tokenizers.Tokenizer.from_file(str(tmp_path / "whisper" / "tokenizer.json"))
    for text in (" turn on the lights", " naïve café — 日本語 ½", " 12,345.67 o'clock it's", " <|en|>"):
        expected = reference.encode(text.replace("<|en|>", "<| en|>"), add_special_tokens=False).ids
        assert vocabulary.tokenize(text.replace("<|en|>", "<| en|>")) == expected
    vocabulary.close()


def test_what_is_no_aligner_is_refused_in_a_sentence(golden: Path, tmp_path: Path) -> None:
    folder = write_whisper(tmp_path / "whisper")
    other = Path(shutil.copytree(golden / "salmonn-tiny" / "checkpoint" / "whisper", tmp_path / "other"))
    shutil.copy(folder / "tokenizer.json", other)
    with pytest.raises(CheckpointError, match="belong to different models"):
        AlignerPart(other)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"alignment_heads": [[7, 0]]}))
    with pytest.raises(CheckpointError, match=r"alignment head \[7, 0\]"):
        AlignerPart(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        AlignerPart(folder)
    assert main(export_arguments(tmp_path / "out", aligner=str(tmp_path / "nowhere"))) == 2
    shutil.rmtree(folder)


def people(golden: Path) -> list[Path]:
    """Recordings of people that are on this machine."""
    cards = Path("/usr/share/pocketsphinx/test/data")
    return [golden / "jfk.wav", *sorted(cards.glob("cards/*.wav")), *sorted(cards.glob("librivox/*.wav"))]


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(TINY_EN, marks=TINY_EN.needed, id="tiny.en"),
        pytest.param(BASE, marks=[BASE.needed, pytest.mark.slow], id="base"),
    ],
)
def test_greedy_text_is_that_of_transformers_on_people(weights: RealWeights, tmp_path: Path, golden: Path) -> None:
    from types import SimpleNamespace

    from auricle.runtime.aligner.aligner import Aligner
    from auricle.runtime.system.ort import OrtOptions

    part = AlignerPart(weights.folder)
    graphs_of(part, tmp_path)
    part.write_vocabulary(tmp_path / VOCABULARY_FILE)
    bundle: Any = SimpleNamespace(manifest=SimpleNamespace(aligner=part.spec), path=lambda name: tmp_path / name)
    model = as_hugging_face(weights.folder, tmp_path / "hf")
    tokens = part.spec.tokens
    aligner = Aligner(bundle, OrtOptions())
    for path in people(golden):
        clip = read_audio(path)
        mel = torch.from_numpy(log_mel(clip, part.spec.encoder))
        language = tokens.languages.get("en")
        prompt = [*tokens.prompt(language)]
        with torch.no_grad():
            generated: Any = model.generate(
                input_features=mel,
                generation_config=None,
                decoder_input_ids=torch.tensor([prompt]),
                suppress_tokens=[*tokens.suppressed],
                begin_suppress_tokens=[*tokens.suppressed_first],
                eos_token_id=tokens.end,
                max_new_tokens=100,
            )
        expected = [n for n in generated[0].tolist() if n < tokens.end]
        assert [*aligner.recognize(clip, 100).token_ids] == expected, path
    aligner.close()
