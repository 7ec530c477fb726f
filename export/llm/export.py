"""The language model: base weights, LLaMA or Qwen3, and a LoRA -> llm.gguf, lora.gguf when asked.

One tensor at a time, so a 13B model needs little more memory than its largest tensor. A LLaMA's vocabulary ends where
its tokenizer does: SALMONN's reference adds a random [PAD] row, which is dropped. A Qwen3 keeps every row of its
embedding. Source: docs/reference.md §4, §5.3, §7.4, §7.5.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import torch

from ...models.bundle import ADAPTER_FILE, LLM_FILE
from ...models.errors import CheckpointError, InputError
from ...models.llm import CANARY_QWEN_LORA, KEEP, LLM_TYPES, SALMONN_LORA, LlmSpec
from ..formats.byte_bpe import ByteVocabulary, is_byte_level, read_byte_vocabulary, read_llama_byte_vocabulary
from ..formats.checkpoint import Weights, read_json
from ..formats.gguf_reader import GgufFile, GgufWeights, is_gguf, open_gguf
from ..formats.gguf_writer import LORA_SCALE, RawTensor, Tensor, require_free_space, rotary_rows, write_tensors
from ..formats.gptq_checkpoint import open_base
from ..formats.sentencepiece import Vocabulary, read_vocabulary
from ..formats.tensor_names import (
    EMBEDDING,
    HEAD,
    ROPE_DIVISORS,
    SALM_EMBEDDING,
    SALM_LLM,
    TABLES,
    gguf_name,
    layer_part,
    rotary_heads,
    salm_names,
    shapes,
)
from ..progress import Report, no_report
from .base_model import Fingerprint, check_base, fingerprint
from .config import RopeScaling, embedding_rows, llama_spec, qwen3_spec, rope_scaling
from .gguf_base import gguf_rope, gguf_spec, gguf_vocabulary
from .gptq import Rounding
from .lora import Lora, require_fit, write_adapter
from .quantize import DEFAULT_TABLES, DIRECT, TableTypes, quantize, require_type

LoraMode = Literal["merged", "adapter", "both"]

RELEASE_BYTES = 1 << 30  # mapped weights given back to the system after so much was read
VOCABULARY_BYTES = 16 << 20  # more than any vocabulary takes in a file
TRAINED = {"llama": SALMONN_LORA, "qwen3": CANARY_QWEN_LORA}


@dataclass(frozen=True)
class Llm:
    """An opened base model: nothing but its headers and vocabulary is in memory. Tensors by Hugging Face's names."""

    directory: Path
    spec: LlmSpec
    weights: Weights
    vocabulary: Vocabulary | ByteVocabulary
    fingerprint: Fingerprint
    notes: tuple[str, ...] = ()
    """What the user should know of the base."""
    rope: RopeScaling | None = None
    file: GgufFile | None = None
    """Where the weights come from, when that is one GGUF file: what it holds can be kept as it is."""

    def type_name(self, quantization: str) -> str:
        """What the file written is: the type asked for, or of the file that is kept."""
        return self.file.type_name if self.file and quantization == KEEP else quantization


def read_llm(directory: Path) -> Llm:
    """Open a LLaMA: a Hugging Face directory of config.json, tokenizer.model (SentencePiece) or tokenizer.json
    (byte-level BPE), safetensors or .bin shards, float or GPTQ; or one GGUF file of any type.

    Raises CheckpointError for another architecture, missing or unknown tensors (named), wrong shapes, or
    a vocabulary that does not fit the weights.
    """
    if is_gguf(directory):
        return _read_gguf(open_gguf(directory))
    config = read_json(directory / "config.json")
    if is_byte_level(directory):
        vocabulary = read_llama_byte_vocabulary(directory, embedding_rows(config, directory))
    else:
        vocabulary = read_vocabulary(directory / "tokenizer.model")
    spec = llama_spec(config, len(vocabulary), directory)
    weights, notes = open_base(directory, config)
    wanted = shapes(spec)
    weights.require(wanted, "LLaMA")
    _require_known(weights.names(), {*wanted, HEAD}, directory)
    if spec.tied:
        _require_tied(weights, EMBEDDING, HEAD, f"{directory}/config.json ties them (tie_word_embeddings)")
    for name, shape in wanted.items():
        _require_shape(name, weights.shape(name), shape, directory)
    found = fingerprint(spec, weights, directory, str(config.get("_name_or_path") or ""))
    return Llm(directory, spec, weights, vocabulary, found, notes, rope_scaling(config, directory))


def _read_gguf(file: GgufFile) -> Llm:
    spec = gguf_spec(file)
    vocabulary = gguf_vocabulary(file)
    rope = gguf_rope(file, spec)
    weights = GgufWeights(file, spec, beside=(ROPE_DIVISORS,))
    wanted = shapes(spec)
    weights.require(wanted, "LLaMA")
    for name, shape in wanted.items():
        if (found := weights.shape(name)) != shape:
            raise CheckpointError(f"{file.path}: {name} is {list(found)} but its header says {list(shape)}")
    base = fingerprint(spec, weights, file.path, str(file.header.get("general.name") or ""))
    return Llm(file.path, spec, weights, vocabulary, base, rope=rope, file=file)


def rounding_note(llm: Llm, quantization: str) -> tuple[str, ...]:
    """What a base that was rounded before costs; nothing where it stays as it is."""
    if llm.file is None or quantization == KEEP or llm.file.type_name in ("f32", "f16", "bf16"):
        return ()
    file = llm.file
    return (
        f"{file.path.name} was rounded to {file.type_name}, which stays in what --llm {quantization} makes of it: the "
        f"float model makes a better bundle, --llm {KEEP} --lora adapter rounds nothing more (docs/quantization.md)",
    )


def read_salm_llm(checkpoint: Weights, qwen: Path) -> Llm:
    """The Qwen3 inside a SALM checkpoint, without its LoRA; config and tokenizer from the directory `qwen`.

    Raises CheckpointError for missing or unknown tensors (named), wrong shapes, a head that is not the embedding
    although config.json ties them, or a tokenizer that does not fit.
    """
    config = read_json(qwen / "config.json")
    spec = qwen3_spec(config, qwen)
    vocabulary = read_byte_vocabulary(qwen, spec.vocab)
    wanted = shapes(spec)
    names = salm_names(wanted, checkpoint.names())
    _require_salm(checkpoint, names, qwen)
    for name, shape in wanted.items():
        found = checkpoint.shape(names[name])
        if found != shape:
            raise CheckpointError(
                f"{checkpoint.source}: {names[name]} is {list(found)} but {qwen}/config.json says {list(shape)}: "
                "give the directory of the Qwen3 that it was trained on as --qwen"
            )
    if spec.tied:
        _require_tied(checkpoint, SALM_EMBEDDING, SALM_LLM + HEAD, "config.json of --qwen ties them")
    weights = checkpoint.renamed(names)
    name_or_path = str(config.get("_name_or_path") or qwen.name)
    return Llm(
        checkpoint.source, spec, weights, vocabulary, fingerprint(spec, weights, checkpoint.source, name_or_path)
    )


@dataclass(frozen=True, kw_only=True)
class LlmExport:
    """What is written of a language model: llm.gguf and, for mode adapter or both, lora.gguf.

    merged: the LoRA is in the weights at lora_scale (alpha / rank when None). adapter: llm.gguf is the base alone.
    both: merged weights, and an adapter that a runtime adds at (wanted scale - lora_scale). Raises, before anything is
    written, CheckpointError for a LoRA of another size and for the wrong base unless `force`, InputError for an unknown
    type, types of tables that this model or file does not have, or a scale that is no number.
    """

    llm: Llm
    lora: Lora
    quantization: str
    mode: LoraMode = "merged"
    lora_scale: float | None = None
    tables: TableTypes = DEFAULT_TABLES
    force: bool = False

    def __post_init__(self) -> None:
        if self.quantization == KEEP:
            require_kept(self.llm, self.mode)
        else:
            require_type(self.quantization)
        require_tables(self.llm.spec, self.quantization, self.tables)
        require_fit(self.lora, self.llm.spec, self.llm.directory.name)
        if not self.force:
            check_base(self.llm.spec, self.llm.fingerprint)
        if not math.isfinite(self.scale):
            trained = self.lora.spec.scale
            raise InputError(f"LoRA scale {self.scale} is not possible: this model was trained with {trained:g}")

    @property
    def scale(self) -> float:
        """Of the LoRA in the weights."""
        return self.lora.spec.scale if self.lora_scale is None else self.lora_scale

    def write(
        self,
        out: Path,
        *,
        n_threads: int = 1,
        progress: Report = no_report,
        verbose: bool = False,
        imatrix: Path | None = None,
        rounding: Rounding | None = None,
    ) -> list[Path]:
        """Write into the directory `out`; returns the paths. Raises InputError for too little disk.

        A quantized type needs the f16 file beside it on disk until it is done, and is rounded by an imatrix file of
        this model when given one; its linears are those of `rounding` when given that.
        """
        spec = self.llm.spec
        kept = self.llm.file if self.quantization == KEEP else None
        needed = kept.n_bytes if kept else disk_bytes(spec, self.quantization)
        needed += 4 * spec.vocab * spec.hidden if self.tables else 0
        require_free_space(out, needed, f"writing the language model as {self.quantization}")
        written = [out / LLM_FILE]
        merge = None if self.mode == "adapter" else (self.lora, self.scale)
        if self.quantization in (*DIRECT, KEEP):
            write_gguf(self.llm, written[0], self.quantization, merge, progress)
        else:
            passing = written[0].with_name(written[0].stem + ".f16.gguf.part")
            try:
                write_gguf(self.llm, passing, "f16", merge, progress, rounding)
                quantize(passing, written[0], self.quantization, n_threads, progress, verbose, imatrix, self.tables)
            finally:
                passing.unlink(missing_ok=True)
        if self.mode != "merged":
            written.append(out / ADAPTER_FILE)
            write_adapter(written[-1], self.lora, spec, progress)
        return written


def require_kept(llm: Llm, mode: LoraMode) -> None:
    """Raises InputError where there is no file whose tensors could be kept, or they would be changed."""
    if llm.file is None:
        raise InputError(f"--llm {KEEP} keeps the tensors of a GGUF file, and {llm.directory} is none: give a type")
    if mode != "adapter":
        raise InputError(
            f"--llm {KEEP} keeps the tensors as they are, a LoRA merged would change them: add --lora adapter"
        )


def require_tables(spec: LlmSpec, quantization: str, tables: TableTypes) -> None:
    """Raises InputError for types of the embedding or the head that this model or file does not have."""
    if tables and quantization in (*DIRECT, KEEP):
        raise InputError(f"--llm {quantization} keeps the embedding and the head as they are: leave their types out")
    if tables.embedding and spec.tied:
        raise InputError("this model's embedding is its head: give --output-tensor-type, not --token-embedding-type")


def disk_bytes(spec: LlmSpec, quantization: str) -> int:
    """Free space needed while exporting: the file, and for a quantized type the f16 file it is made from."""
    kept = spec.weight_bytes(quantization)
    passing = 0 if quantization in DIRECT else spec.weight_bytes("f16")
    return round(1.05 * (kept + passing)) + 2 * VOCABULARY_BYTES


def write_gguf(
    llm: Llm,
    path: Path,
    quantization: str,
    merge: tuple[Lora, float] | None = None,
    progress: Report = no_report,
    rounding: Rounding | None = None,
) -> None:
    """Write the model as f16 or f32 (norms always f32), with (lora, scale) merged in float32 on the way, or "keep".

    What is rounded already is written as it was rounded.
    """
    writer = gguf.GGUFWriter(None, llm.spec.architecture)
    kind = LLM_TYPES[quantization].ftype if llm.file is None or quantization != KEEP else llm.file.file_type
    add_metadata(writer, llm.spec, llm.fingerprint.directory, kind, merge[1] if merge else 0.0)
    llm.vocabulary.add_to(writer)
    try:
        tensors = _tensors(llm, quantization, merge, rounding)
        write_tensors(writer, path, tensors, f"write {quantization}", progress)
    finally:
        llm.weights.close()


def _tensors(
    llm: Llm, quantization: str, merge: tuple[Lora, float] | None, rounding: Rounding | None
) -> Iterator[Tensor | RawTensor]:
    """In the model's own order, so that the same weights make the same file, however they are sharded."""
    if llm.file and quantization == KEEP:
        beside = [ROPE_DIVISORS] if ROPE_DIVISORS in llm.file.tensors else []
        yield from map(llm.file.raw, (*beside, *(gguf_name(name) for name in shapes(llm.spec))))
        return
    reader = _Reader(llm, merge)
    if llm.rope is not None:  # as a tensor: llama.cpp aborts on a key `rope.scaling.type` of llama3
        divisors = llm.rope.divisors(llm.spec)
        yield Tensor(ROPE_DIVISORS, divisors.shape, np.float32, lambda: divisors)
    for name, shape in shapes(llm.spec).items():
        if rounding and name in rounding.names:
            yield RawTensor(gguf_name(name), shape, rounding.kind, partial(_blocks, llm.spec, rounding, name))
            continue
        dtype = np.float32 if quantization == "f32" or len(shape) == 1 else np.float16
        yield Tensor(gguf_name(name), shape, dtype, lambda name=name: reader.read(name))


def _blocks(spec: LlmSpec, rounding: Rounding, name: str) -> list[np.ndarray]:
    heads = rotary_heads(spec, name.split(".")[-2])
    found = rounding.take(name)
    return [(found.rotary(heads) if heads else found).blocks()]


class _Reader:
    """Reads tensors as the GGUF file wants them, and gives mapped files back to the system now and then."""

    def __init__(self, llm: Llm, merge: tuple[Lora, float] | None) -> None:
        self._llm = llm
        self._merge = merge
        self._n_read = 0

    def read(self, name: str) -> np.ndarray:
        spec = self._llm.spec
        weights = self._llm.weights
        if self._n_read > RELEASE_BYTES:  # pages of a mapped shard count as ours until it is closed
            weights.close()
            self._n_read = 0
        weight = weights.get(name)
        self._n_read += weight.nbytes
        place = layer_part(name)
        if place is None:
            return _array(weight[: spec.vocab] if weight.ndim == 2 else weight)
        layer = place[0]
        target = place[1].split(".")[-1]
        if self._merge:
            lora, scale = self._merge
            weight = lora.merged(weight, layer, target, scale)
        heads = rotary_heads(spec, target)
        return rotary_rows(_array(weight), heads) if heads else _array(weight)


def _array(weight: torch.Tensor) -> np.ndarray:
    return (weight.float() if weight.dtype == torch.bfloat16 else weight).detach().numpy()


def add_metadata(writer: gguf.GGUFWriter, spec: LlmSpec, name: str, file_type: int | None, lora_scale: float) -> None:
    """file_type: one of llama.cpp's llama_ftype; None where it is not known."""
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_vocab_size(spec.vocab)
    writer.add_context_length(spec.max_positions)
    writer.add_embedding_length(spec.hidden)
    writer.add_block_count(spec.n_layers)
    writer.add_feed_forward_length(spec.d_ffn)
    writer.add_head_count(spec.n_heads)
    writer.add_head_count_kv(spec.n_kv_heads)
    if spec.head_dim:
        writer.add_key_length(spec.d_head)
        writer.add_value_length(spec.d_head)
    writer.add_rope_dimension_count(spec.d_head)
    writer.add_rope_freq_base(spec.rope_theta)
    writer.add_layer_norm_rms_eps(spec.rms_norm_eps)
    writer.add_float32(LORA_SCALE, lora_scale)


def _require_known(names: Iterable[str], known: Collection[str], directory: Path) -> None:
    strange = [name for name in names if name not in known and not name.endswith("rotary_emb.inv_freq")]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise CheckpointError(f"{directory} holds {', '.join(strange[:3])}{more}, which no Vicuna has")


def _require_shape(name: str, found: tuple[int, ...], wanted: tuple[int, ...], directory: Path) -> None:
    if name in TABLES and len(found) == len(wanted) == 2 and found[1] == wanted[1]:
        if found[0] < wanted[0]:
            raise CheckpointError(
                f"{directory}: {name} has {found[0]} rows for the {wanted[0]} pieces of tokenizer.model: "
                "they belong to different models"
            )
    elif found != wanted:
        raise CheckpointError(f"{directory}: {name} is {list(found)} but config.json says {list(wanted)}")


def _require_salm(checkpoint: Weights, names: dict[str, str], qwen: Path) -> None:
    """Raises CheckpointError unless the checkpoint's language model has these tensors, its LoRA, and no others."""
    checkpoint.require(names.values(), f"SALM checkpoint for the language model of {qwen.name}")
    known = {*names.values(), SALM_LLM + HEAD}  # a tied head is stored once more
    llm = [name for name in checkpoint.names() if name.startswith("llm.") and ".lora_" not in name]
    strange = [name for name in llm if name not in known]
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise CheckpointError(
            f"{checkpoint.source} holds {', '.join(strange[:3])}{more}, for which {qwen}/config.json has no place: "
            "give the directory of the Qwen3 that it was trained on as --qwen"
        )


def _require_tied(weights: Weights, embedding: str, head: str, why: str) -> None:
    if head in weights and not torch.equal(weights.get(head), weights.get(embedding)):
        raise CheckpointError(
            f"{weights.source}: {head} differs from {embedding}, but {why}: "
            "the checkpoint is damaged, or belongs to another model"
        )
    weights.close()
