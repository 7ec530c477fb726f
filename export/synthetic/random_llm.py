"""Language models of random weights: a spec and a vocabulary -> GGUF, a tensor at a time."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import gguf
import numpy as np

from ...models.llm import LLM_TYPES, LlmSpec
from ..formats.byte_bpe import ByteVocabulary
from ..formats.gguf_writer import RawTensor, write_tensors
from ..formats.sentencepiece import Vocabulary
from ..formats.tensor_names import gguf_name, shapes
from ..llm.export import TRAINED, add_metadata
from ..llm.tensor_types import tensor_type
from ..progress import Report, no_report
from .random_weights import weight_pool


def write_random_llm(
    spec: LlmSpec,
    vocabulary: Vocabulary | ByteVocabulary,
    path: Path,
    quantization: str,
    seed: int,
    progress: Report = no_report,
) -> None:
    """Write a model of these sizes with random weights, its blocks of the types llama.cpp's quantizer would choose.

    Little memory is used, and nothing but the file's own size on disk. Rows must be multiples of 256.
    """
    writer = gguf.GGUFWriter(None, spec.architecture)
    kind = LLM_TYPES[quantization].ftype
    add_metadata(writer, spec, f"random weights, seed {seed}", kind, TRAINED[spec.architecture].scale)
    vocabulary.add_to(writer)
    write_tensors(writer, path, random_tensors(spec, quantization, seed), f"write {quantization}", progress)


def random_tensors(spec: LlmSpec, quantization: str, seed: int) -> list[RawTensor]:
    """Every tensor of the model in the order of its file: norms are 1, the rest is random."""
    rng = np.random.default_rng(seed)
    sizes = {gguf_name(name): shape for name, shape in shapes(spec).items()}
    kinds = {name: tensor_type(name, spec.n_layers, quantization, spec.tied) for name in sizes}
    pools = cache(lambda kind: weight_pool(kind, rng))

    def tensor(name: str) -> RawTensor:
        shape = sizes[name]
        kind = kinds[name]
        if len(shape) == 1:
            return RawTensor(name, shape, kind, lambda: [np.ones(shape, np.float32)])
        raw = RawTensor(name, shape, kind, lambda: pools(kind).take(raw.n_blocks))
        return raw

    return [tensor(name) for name in sizes]
