"""Contestants for a table of recordings: a bundle's transcripts beside those of other runtimes of a Whisper.

Everybody hears every recording of the table in each round, from samples in memory, one after the other. faster-whisper
is told the language, as who uses it with an English model would; "beam 5" is what it does unless told otherwise. It
does not hear again what it was unsure of, for then it draws lots, and every round must compute the same. whisper.cpp,
asked the same way, has the same weights in Q8_0; optimum has its own ONNX export of them, in its own int8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.bundle import read_manifest
from ...models.errors import InputError
from ..result import OURS, Measure
from .ggml_format import write_recognizer
from .onnx_graphs import torch_with
from .task import SEED, Contestant, Outcome, Task, Work, whole_or_absent

if TYPE_CHECKING:  # a peer's interpreter has neither what reads sound files nor what counts errors
    from ..datasets import Item

_FASTER_WHISPER = "faster-whisper==1.2.1"
_WHISPER_CPP = "pywhispercpp==1.5.1"
_OPTIMUM = "optimum-onnx[onnxruntime]==0.1.0"
_MULTILINGUAL = 51865
"""Rows of the vocabulary of a Whisper that is told the language; an English one has fewer."""
_TIMES = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
"""Whisper's timestamps, the last of its tokens."""
_FILES = "[0-9][0-9][0-9][0-9][0-9].npy"
_BEAMS = {"greedy": 1, "beam 5": 5}
SHORTEST = 17_600
"""Samples: whisper.cpp says nothing about less than a second, and a little more."""


def items(task: Task) -> list[Item]:
    """The table's recordings. Raises InputError without a table or a bundle, or where more than a text is asked."""
    from ..datasets import table_items

    if task.data is None or task.bundle is None:
        raise InputError("recordings are heard from a table by a bundle: give --data TSV and --bundle DIR")
    found = table_items(task.data, read_manifest(task.bundle).prompt, "asr", None, SEED)
    if other := next((item for item in found if item.kind != "words"), None):
        raise InputError(f"{other.origin} asks for more than a transcript: give a table of audio and text")
    return found


def measures(task: Task, name: str, texts: Sequence[str]) -> list[Measure]:
    """Word error of what one of them heard, with its interval, and of how many words."""
    from ..word_errors import percentages, total, word_errors

    errors = [word_errors(item.reference, text) for item, text in zip(items(task), texts, strict=True)]
    rates = percentages(errors, SEED).items()
    found = [Measure(name, measure, "%", (value,), "lower") for measure, value in rates]
    return [*found, Measure(name, "words", "", (total(errors).words,), "neither")]


def write_waveforms(task: Task) -> None:
    """float32 [n_samples] at 16 kHz of each recording, for everybody to hear the same."""
    from ...runtime.audio.decode import read_audio

    folder = _folder(task)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(_FILES):
        old.unlink()
    for number, item in enumerate(items(task)):
        np.save(folder / f"{number:05}.npy", read_audio(Path(item.audio)))


def _waveforms(task: Task) -> list[Waveform]:
    return [np.load(path) for path in sorted(_folder(task).glob(_FILES))]


def _folder(task: Task) -> Path:
    return task.work / "recordings"


def open_ours(task: Task) -> Work:
    """engine.ask, with our own choice of threads unless a number was asked for."""
    from ...runtime.engine import EngineOptions, load
    from ...runtime.llm.options import LlmOptions
    from ...runtime.system.ort import OrtOptions

    assert task.bundle is not None
    threads = None if task.own_threads else task.threads
    engine = load(task.bundle, EngineOptions(OrtOptions("cpu", threads), LlmOptions(n_threads=threads, n_gpu_layers=0)))
    waveforms = _waveforms(task)
    return Work(lambda: Outcome(texts=tuple(engine.ask(waveform, "asr").text for waveform in waveforms)))


def complete(task: Task, weights: Path) -> Path:
    """The directory, or one of links to its files beside a vocabulary.json, which some leave out, of its tokenizer."""
    if any(weights.glob("vocabulary.*")):
        return weights
    folder = task.work / "recognizers" / weights.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in weights.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    tokenizer = json.loads((weights / "tokenizer.json").read_text(encoding="utf-8"))
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=ids.__getitem__)
    if _TIMES[0] not in ids:
        tokens += _TIMES
    (folder / "vocabulary.json").write_text(json.dumps(tokens), encoding="utf-8")
    return folder


def open_faster_whisper(weights: Path, beam_size: int) -> Callable[[Task], Work]:
    """In int8."""

    def opened(task: Task) -> Work:
        import faster_whisper  # pyright: ignore

        library: Any = faster_whisper
        place = str(complete(task, weights))
        model = library.WhisperModel(place, device="cpu", compute_type="int8", cpu_threads=task.threads)
        waveforms = _waveforms(task)

        def transcribe(waveform: Waveform) -> str:
            segments, _ = model.transcribe(waveform, language="en", beam_size=beam_size, temperature=0.0)
            return "".join(segment.text for segment in segments).strip()

        return Work(lambda: Outcome(texts=tuple(map(transcribe, waveforms))))

    return opened


def write_whisper_cpp(weights: Path) -> Callable[[Task], None]:
    """The directory as a file of whisper.cpp's."""

    def write(task: Task) -> None:
        if not (path := _ggml_file(task, weights)).exists():
            with whole_or_absent(path) as temporary:
                write_recognizer(temporary, weights)

    return write


def open_whisper_cpp(weights: Path, beam_size: int) -> Callable[[Task], Work]:
    """In Q8_0."""

    def opened(task: Task) -> Work:
        library: Any = import_module("pywhispercpp.model")
        options: dict[str, Any] = {"params_sampling_strategy": int(beam_size > 1), "n_threads": task.threads}
        if beam_size > 1:
            options["beam_search"] = {"beam_size": beam_size, "patience": -1.0}
        quiet = {"print_progress": False, "print_realtime": False, "redirect_whispercpp_logs_to": None}
        path = str(_ggml_file(task, weights))
        model = library.Model(path, language="en", temperature_inc=0.0, **options, **quiet)
        waveforms = _waveforms(task)

        def transcribe(waveform: Waveform) -> str:
            short = max(0, SHORTEST - len(waveform))
            return "".join(f" {each.text}" for each in model.transcribe(np.pad(waveform, (0, short)))).strip()

        return Work(lambda: Outcome(texts=tuple(map(transcribe, waveforms))))

    return opened


def write_optimum(weights: Path) -> Callable[[Task], None]:
    """The directory as transformers has it, exported and quantized by optimum, as its documentation says."""

    def write(task: Task) -> None:
        path = _optimum_folder(task, weights)
        if path.exists():
            return
        optimum: Any = import_module("optimum.onnxruntime")
        configuration: Any = import_module("optimum.onnxruntime.configuration")
        choice = configuration.AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=False)
        with whole_or_absent(path) as temporary:
            write_transformers(temporary, weights)
            exported = optimum.ORTModelForSpeechSeq2Seq.from_pretrained(temporary, export=True, use_merged=False)
            exported.save_pretrained(temporary / "float")
            for graph in _GRAPHS.values():
                quantizer = optimum.ORTQuantizer.from_pretrained(temporary / "float", file_name=f"{graph}.onnx")
                quantizer.quantize(save_dir=temporary / "int8", quantization_config=choice)

    return write


_GRAPHS = {
    "encoder_file_name": "encoder_model",
    "decoder_file_name": "decoder_model",
    "decoder_with_past_file_name": "decoder_with_past_model",
}


def write_transformers(path: Path, weights: Path) -> None:
    """A directory of faster-whisper's as WhisperForConditionalGeneration."""
    import transformers

    from ...export.formats.ctranslate2 import CTranslate2Whisper

    library: Any = transformers
    read = CTranslate2Whisper(weights)
    n_rows = len(read.get("model.decoder.embed_tokens.weight"))
    tokenizer = library.WhisperTokenizerFast(tokenizer_file=str(weights / "tokenizer.json"))
    end, start = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|startoftranscript|>"])
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": start}
    sizes: dict[str, Any] = {
        "vocab_size": n_rows,
        "d_model": read.d_model,
        "encoder_layers": read.n_layers,
        "decoder_layers": sum(name.startswith("model.decoder.") and name.endswith("fc1.bias") for name in read.names()),
        "encoder_attention_heads": read.n_heads,
        "decoder_attention_heads": read.n_heads,
        "encoder_ffn_dim": read.d_ffn,
        "decoder_ffn_dim": read.d_ffn,
        "num_mel_bins": read.n_mels,
        "max_source_positions": read.n_positions,
    }
    model = library.WhisperForConditionalGeneration(library.WhisperConfig(**sizes, **ids))
    model.load_state_dict({name: read.get(name).float() for name in read.names()}, strict=False)  # its head is tied
    model.tie_weights()
    for part in (model, tokenizer, library.WhisperFeatureExtractor(feature_size=read.n_mels)):
        part.save_pretrained(path)
    known = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    prompt = ["<|notimestamps|>", "<|en|>", "<|transcribe|>", "<|translate|>", "<|startofprev|>"]
    silent, english, transcribe, translate, before = tokenizer.convert_tokens_to_ids(prompt)
    choice = library.GenerationConfig(
        **ids,
        max_length=448,
        suppress_tokens=known["suppress_ids"],
        begin_suppress_tokens=known["suppress_ids_begin"],
        no_timestamps_token_id=silent,
        prev_sot_token_id=before,
        is_multilingual=n_rows >= _MULTILINGUAL,
        lang_to_id={"<|en|>": english},
        task_to_id={"transcribe": transcribe, "translate": translate},
    )
    choice.save_pretrained(path / "generation")


def open_optimum(weights: Path, beam_size: int) -> Callable[[Task], Work]:
    """In int8, through transformers' generate."""

    def opened(task: Task) -> Work:
        import transformers

        library: Any = transformers
        optimum: Any = import_module("optimum.onnxruntime")
        runtime: Any = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = task.threads
        torch_with(task.threads)
        path = _optimum_folder(task, weights)
        graphs = {name: f"{graph}_quantized.onnx" for name, graph in _GRAPHS.items()}
        model = optimum.ORTModelForSpeechSeq2Seq.from_pretrained(
            path / "int8", **graphs, use_cache=True, use_merged=False, session_options=options
        )
        model.generation_config = choice = library.GenerationConfig.from_pretrained(path / "generation")
        tokenizer = library.WhisperTokenizerFast.from_pretrained(path)
        extractor = library.WhisperFeatureExtractor.from_pretrained(path)
        told = {"language": "en", "task": "transcribe"} if choice.is_multilingual else {}
        waveforms = _waveforms(task)

        def transcribe(waveform: Waveform) -> str:
            features = extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
            ids = model.generate(features, num_beams=beam_size, **told)
            return tokenizer.batch_decode(ids, skip_special_tokens=True)[0].strip()

        return Work(lambda: Outcome(texts=tuple(map(transcribe, waveforms))))

    return opened


def _optimum_folder(task: Task, weights: Path) -> Path:
    return task.work / "recognizers" / f"{weights.name}.optimum"


def _ggml_file(task: Task, weights: Path) -> Path:
    return task.work / "recognizers" / f"{weights.name}.q8_0.bin"


def contestants(task: Task) -> dict[str, Contestant]:
    """Ours, and the others with each of the directories, in both ways. InputError where two are called the same."""
    names = [weights.name for weights in task.recognizers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two recognizers are called {min(twice)}: give directories of different names")
    team = {OURS: Contestant(open_ours, write_waveforms)}
    for weights in task.recognizers:
        for way, beam_size in _BEAMS.items():
            name = f"faster-whisper {weights.name} {way}"
            team[name] = Contestant(open_faster_whisper(weights, beam_size), pip=_FASTER_WHISPER)
            name = f"whisper.cpp {weights.name} {way}"
            opened, written = open_whisper_cpp(weights, beam_size), write_whisper_cpp(weights)
            team[name] = Contestant(opened, written, _WHISPER_CPP, prepared_by_us=True)
            name = f"optimum {weights.name} {way}"
            team[name] = Contestant(open_optimum(weights, beam_size), write_optimum(weights), _OPTIMUM)
    return team
