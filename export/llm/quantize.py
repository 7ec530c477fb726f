"""Quantizing a GGUF file with llama.cpp's own quantizer, in a process of its own.

A process, because the quantizer is one long C call: in ours, Ctrl-C would wait for minutes, and its abort()
would be ours. That process runs `main`, which prints llama.cpp's log.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from ...models.errors import InputError, RunError
from ...models.llm import GPTQ_TYPES, KEEP, LLM_TYPES, TABLE_TYPES
from ..formats.gguf_writer import complete_or_absent, require_free_space
from ..formats.imatrix_file import read_imatrix
from ..progress import Report, no_report

DIRECT = ("f32", "f16")  # written as they are; everything else goes through the quantizer
UNWEIGHTED = (*DIRECT, KEEP, "q8_0", *GPTQ_TYPES)  # for these llama.cpp does not look at an importance matrix

MAX_BUFFER = 512 << 20  # bytes of rows in memory at once; llama.cpp's own default is 8 GiB
NO_ROOM = 64 << 20  # less free disk than this when the quantizer failed: the disk was the reason
_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")


@dataclass(frozen=True)
class TableTypes:
    """What the two tables of the vocabulary are kept at; None: as llama.cpp chooses by tensor. Raises InputError."""

    embedding: str | None = None
    """Of a tied model nothing: the embedding is the head."""
    head: str | None = None

    def __post_init__(self) -> None:
        for kind in (self.embedding, self.head):
            if kind is not None and kind not in TABLE_TYPES:
                raise InputError(f"{kind!r} is not a type for an embedding or a head: choose {', '.join(TABLE_TYPES)}")

    def __bool__(self) -> bool:
        return self != DEFAULT_TABLES


DEFAULT_TABLES = TableTypes()


def quantize(
    source: Path,
    target: Path,
    quantization: str,
    n_threads: int = 1,
    progress: Report = no_report,
    verbose: bool = False,
    imatrix: Path | None = None,
    tables: TableTypes = DEFAULT_TABLES,
) -> None:
    """Write `target` from an f16 or f32 `source`; llama.cpp's log goes to stderr when verbose.

    imatrix: a file that fits this model (imatrix.require_match): columns that are driven harder are rounded less.
    What is in `source` of the wanted type already is copied as it is.

    Tensors whose rows are not whole blocks (256 values in the k types, 32 in the others) get the nearest type
    that fits: llama.cpp's rule. Raises InputError for a full disk, RunError when llama.cpp
    fails.
    """
    if not source.is_file():
        raise InputError(f"{source} is not a file: there is nothing to quantize")
    script = f"from {__name__} import main; raise SystemExit(main())"
    with complete_or_absent(target) as temporary:
        given = [str(imatrix or ""), tables.embedding or "", tables.head or ""]
        arguments = [str(source), str(temporary), quantization, str(n_threads), *given]
        try:
            _run(
                [sys.executable, "-P", "-c", script, *arguments],
                f"quantize {quantization}",
                progress,
                verbose,
            )
        except RunError:
            require_free_space(target.parent, NO_ROOM, f"quantizing to {quantization}")
            raise


def require_type(quantization: str) -> None:
    """Raises InputError for a type that is not one of LLM_TYPES."""
    if quantization not in LLM_TYPES:
        raise InputError(f"{quantization!r} is not a type of GGUF weights: choose {', '.join(LLM_TYPES)}")


def require_weighted(quantization: str) -> None:
    """Raises InputError for a type that an importance matrix does not change."""
    if quantization in UNWEIGHTED:
        raise InputError(f"--imatrix changes nothing at --llm {quantization}: leave it out, or choose fewer bits")


def _run(command: list[str], stage: str, progress: Report, verbose: bool) -> None:
    last = ""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace") as job:
        assert job.stdout is not None
        try:
            for line in job.stdout:
                last = line.strip() or last
                if verbose:
                    sys.stderr.write(line)
                if match := _TENSOR.search(line):
                    progress(stage, int(match[1]), int(match[2]))
        except BaseException:
            job.kill()
            raise
    if job.returncode == -signal.SIGKILL:
        raise RunError(f"{stage} was killed, most likely for lack of memory: close other programs")
    if job.returncode:
        raise RunError(f"{stage} failed in llama.cpp: {last}")


def is_whole(path: Path) -> bool:
    """Whether llama.cpp finds every tensor inside the file; nothing but header and vocabulary is loaded."""
    import llama_cpp

    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    if model:
        llama_cpp.llama_model_free(model)
    return bool(model)


def main() -> int:
    """The child process: quantize what the command line names; status 1 and a last line when it fails."""
    import llama_cpp

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    source, target, quantization, n_threads, imatrix, embedding, head = sys.argv[1:]

    @llama_cpp.llama_log_callback
    def log(_level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        try:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # nobody waits for the result any more
            os._exit(1)

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    options = llama_cpp.llama_model_quantize_default_params()
    options.nthread = int(n_threads)
    options.ftype = LLM_TYPES[quantization].ftype
    options.max_buf_size = MAX_BUFFER
    if embedding:
        options.token_embedding_type = gguf.GGMLQuantizationType[embedding.upper()]
    if head:
        options.output_tensor_type = gguf.GGMLQuantizationType[head.upper()]
    kept = _weigh(options, Path(imatrix)) if imatrix else None
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.pointer(options)):
        return 1
    del kept  # the quantizer has read it
    return 0 if is_whole(Path(target)) else 1  # the quantizer notices a full disk late or never


def _weigh(options: Any, path: Path) -> list[Any]:
    """Hands the importance matrix over; returns what must stay in memory meanwhile. Metadata as llama-quantize's."""
    import llama_cpp

    importance = read_imatrix(path)
    means = {name.encode(): np.ascontiguousarray(values) for name, values in importance.means().items()}
    pointer = ctypes.POINTER(ctypes.c_float)
    rows = [(name, values.ctypes.data_as(pointer), values.size) for name, values in means.items()]
    data = (llama_cpp.llama_model_imatrix_data * (len(rows) + 1))(*rows)  # the last one is empty: the end
    header: dict[str, str | int] = {
        "file": path.name,
        "entries_count": len(rows),
        "chunks_count": importance.n_chunks,
    }
    if importance.datasets:
        header["dataset"] = importance.datasets[0]
    overrides = (llama_cpp.llama_model_kv_override * (len(header) + 1))()
    for override, (key, value) in zip(overrides, header.items(), strict=False):
        override.key = f"quantize.imatrix.{key}".encode()
        if isinstance(value, int):
            override.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT
            override.value.val_i64 = value
        else:
            override.tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
            override.value.val_str = value.encode()[:127]
    options.imatrix = ctypes.cast(data, ctypes.POINTER(llama_cpp.llama_model_imatrix_data))
    options.kv_overrides = ctypes.cast(overrides, ctypes.POINTER(llama_cpp.llama_model_kv_override))
    return [means, data, overrides]


if __name__ == "__main__":
    sys.exit(main())
