"""Contestants for one 30 s window of the Whisper encoder: the same weights for all, random or trained; real speech."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...models.encoders import whisper
from ...models.encoders.whisper import WhisperSpec
from ..result import OURS
from . import onnx_graphs
from .ggml_format import open_pywhispercpp, open_transcribe_cpp, write_ggml
from .task import Contestant, Task, Work, whole_or_absent

_CTRANSLATE2 = "ctranslate2==4.8.5"
_FP32, _OURS, _PLAIN = "fp32", "auricle-int8", "plain-int8"
_STATIC, _INT4 = "static-int8", "auricle-int4"
_SPECIALS = ("<|endoftext|>", "<|startoftranscript|>", "<|translate|>", "<|transcribe|>", "<|notimestamps|>")


def spec_of(task: Task) -> WhisperSpec:
    """Whisper-large-v2 with task.layers layers, or the bundle's."""
    return onnx_graphs.spec_of(task).whisper


def window(task: Task) -> NDArray[np.float32]:
    """Speech: the recording, silence behind it; else the exporter's, repeated. float32 [n_samples]."""
    from ...runtime.audio.decode import read_audio

    n_samples = spec_of(task).n_samples
    if task.recording is not None:
        heard = read_audio(task.recording)[:n_samples]
        return np.pad(heard, (0, n_samples - len(heard)))
    with resources.as_file(resources.files("auricle.export") / "jfk.wav") as path:
        return np.resize(read_audio(path), n_samples)


def feeds(task: Task) -> dict[str, NDArray[np.float32]]:
    """log_mel [1, n_mels, n_frames]."""
    return _features(window(task), spec_of(task))


def calibration(task: Task) -> list[dict[str, NDArray[np.float32]]]:
    """What int8 is tried on: as the exporter does for trained weights, of random ones what is heard."""
    if task.whisper is None:
        return [feeds(task)]
    from ...export.parity import calibration_clips

    return [_features(clip, spec_of(task)) for clip in calibration_clips(spec_of(task).n_samples)]


def _features(clip: NDArray[np.float32], spec: WhisperSpec) -> dict[str, NDArray[np.float32]]:
    from ...models.encoders.whisper import log_mel

    return {whisper.INPUT: log_mel(clip, spec)}


def encoder(task: Task, attention: str) -> Any:
    """transformers' WhisperEncoder with the trained weights, or with random ones."""
    if task.whisper is None:
        return random_encoder(spec_of(task), attention, task.threads)
    from ...export.encoders.whisper import load_whisper

    onnx_graphs.torch_with(task.threads)
    trained: Any = load_whisper(task.whisper)[1]
    trained.config._attn_implementation = attention
    return trained


def random_encoder(spec: WhisperSpec, attention: str, threads: int = 1) -> Any:
    """transformers' WhisperEncoder, its weights drawn from SEED by transformers' own rule."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    sizes: dict[str, Any] = {
        "d_model": spec.d_model,
        "encoder_layers": spec.n_layers,
        "encoder_attention_heads": spec.n_heads,
        "encoder_ffn_dim": spec.d_ffn,
        "num_mel_bins": spec.n_mels,
        "max_source_positions": spec.n_positions,
        "attn_implementation": attention,
    }
    onnx_graphs.torch_with(threads)
    return WhisperEncoder(WhisperConfig(**sizes)).eval().requires_grad_(False)


def file(task: Task, name: str) -> Path:
    """Where something written for these sizes lies."""
    spec = spec_of(task)
    weights = "whisper" if task.whisper is None else task.whisper.name
    directory = task.work / f"{weights}-{spec.d_model}x{spec.n_layers}"
    return (
        onnx_graphs.graph_file(directory, name) if name in (_FP32, _OURS, _PLAIN, _STATIC, _INT4) else directory / name
    )


def write_full(task: Task) -> None:
    """The fp32 graph that the exporter writes of that encoder; behind random weights with a LayerNorm of no weights.

    Behind trained ones nothing, for the others' outputs are compared with it.
    """
    from ...export.encoders.whisper import export_whisper

    spec = spec_of(task)
    layers = onnx_graphs.torch_with(task.threads).nn
    norm = layers.LayerNorm(spec.d_model).eval() if task.whisper is None else layers.Identity()
    onnx_graphs.write_once(file(task, _FP32), lambda path: export_whisper(encoder(task, "eager"), norm, spec, path))


def write_ours(task: Task) -> None:
    """The int8 graph by the exporter's own rule, unless a graph or a bundle was given."""
    if task.graph is None and task.bundle is None:
        write_full(task)
        onnx_graphs.write_int8(file(task, _FP32), file(task, _OURS), calibration(task))


def write_plain(task: Task) -> None:
    """The int8 graph by onnxruntime's own quantize_dynamic."""
    write_full(task)
    onnx_graphs.write_plain_int8(file(task, _FP32), file(task, _PLAIN))


def write_static(task: Task) -> None:
    """The int8 graph by onnxruntime's own quantize_static, calibrated as ours."""
    write_full(task)
    onnx_graphs.write_static_int8(file(task, _FP32), file(task, _STATIC), calibration(task))


def write_int4(task: Task) -> None:
    """The exporter's int4 graph."""
    write_full(task)
    onnx_graphs.write_int4(file(task, _FP32), file(task, _INT4))


def open_int4(task: Task) -> Work:
    """As the runtime opens it."""
    return onnx_graphs.open_ours(file(task, _INT4), onnx_graphs.interface(task, "whisper"), feeds(task), task.threads)


def open_ours(task: Task) -> Work:
    """The exporter's graph, or the one that was given."""
    path = onnx_graphs.our_graph(task, "whisper", file(task, _OURS))
    return onnx_graphs.open_ours(path, onnx_graphs.interface(task, "whisper"), feeds(task), task.threads)


def open_default(name: str) -> Callable[[Task], Work]:
    """One of the graphs that were written, by onnxruntime's defaults."""
    return lambda task: onnx_graphs.open_default(file(task, name), feeds(task), task.threads)


def open_torch(dtype: str) -> Callable[[Task], Work]:
    """transformers' encoder with torch's fused attention."""

    def opened(task: Task) -> Work:
        kind = getattr(onnx_graphs.torch_with(task.threads), dtype)
        module = encoder(task, "sdpa").to(kind)
        return onnx_graphs.open_torch(module, feeds(task), task.threads)

    return opened


def write_ctranslate2(task: Task, precision: str) -> None:
    """Through CTranslate2's own specification of Whisper and its own quantization; a decoder of one layer."""
    path = file(task, f"ctranslate2-{precision}")
    if path.exists():
        return
    from ctranslate2.converters import transformers as converters  # pyright: ignore
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    spec = spec_of(task)
    small: dict[str, Any] = {
        "d_model": spec.d_model,
        "encoder_layers": 0,
        "decoder_layers": 1,
        "decoder_attention_heads": spec.n_heads,
        "decoder_ffn_dim": 16,
        "vocab_size": len(_SPECIALS),
    }
    ids: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    model: Any = WhisperForConditionalGeneration(WhisperConfig(**small, **ids))
    model.model.encoder = encoder(task, "eager")
    model.config.encoder_layers = spec.n_layers
    model.config.encoder_attention_heads = spec.n_heads
    library = cast(Any, converters)
    converted: Any = library.WhisperLoader().get_model_spec(model)
    converted.register_vocabulary(list(_SPECIALS))
    converted.config.suppress_ids = converted.config.suppress_ids_begin = converted.config.lang_ids = []
    converted.config.alignment_heads = [(0, 0)]
    converted.validate()
    converted.optimize(quantization=precision)
    with whole_or_absent(path) as temporary:
        temporary.mkdir()
        converted.save(str(temporary))


def open_ctranslate2(precision: str) -> Callable[[Task], Work]:
    """Its Whisper.encode."""

    def opened(task: Task) -> Work:
        import ctranslate2  # pyright: ignore

        library: Any = ctranslate2
        path = str(file(task, f"ctranslate2-{precision}"))
        model = library.models.Whisper(path, device="cpu", compute_type=precision, intra_threads=task.threads)
        features = library.StorageView.from_array(feeds(task)[whisper.INPUT])
        return Work(lambda: onnx_graphs.outcome(np.array(model.encode(features, to_cpu=True))))

    return opened


def write_q8_0(task: Task) -> None:
    """The file that whisper.cpp and transcribe.cpp read."""
    path = file(task, "q8_0.bin")
    if not path.exists():
        with whole_or_absent(path) as temporary:
            write_ggml(temporary, spec_of(task), encoder(task, "eager").state_dict())


def _open_ggml(open_file: Callable[..., Work]) -> Callable[[Task], Work]:
    return lambda task: open_file(file(task, "q8_0.bin"), window(task), task.threads)


def contestants(_: Task) -> dict[str, Contestant]:
    """In the order of running."""
    ctranslate2 = {
        f"ctranslate2 {name}": Contestant(
            open_ctranslate2(kind), partial(write_ctranslate2, precision=kind), _CTRANSLATE2
        )
        for name, kind in (("int8", "int8"), ("fp32", "float32"))
    }
    return {
        OURS: Contestant(open_ours, write_ours),
        "our int4": Contestant(open_int4, write_int4),
        "plain int8": Contestant(open_default(_PLAIN), write_plain),
        "static int8": Contestant(open_default(_STATIC), write_static),
        "onnxruntime fp32": Contestant(open_default(_FP32), write_full),
        "torch fp32": Contestant(open_torch("float32")),
        "torch bf16": Contestant(open_torch("bfloat16")),
        **ctranslate2,
        "transcribe-cpp q8_0": Contestant(_open_ggml(open_transcribe_cpp), write_q8_0, "transcribe-cpp==0.4.1"),
        "pywhispercpp q8_0": Contestant(_open_ggml(open_pywhispercpp), write_q8_0, "pywhispercpp==1.5.1"),
    }
