"""Quantize a GGUF file with llama.cpp's own quantizer, in a process of its own.

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
from pathlib import Path

from ..models.errors import InputError, RunError
from ..models.llm import LLM_TYPES
from .gguf_file import complete_or_absent, require_room
from .progress import Report, no_report

DIRECT = ("f32", "f16")  # written as they are; everything else goes through the quantizer

MAX_BUFFER = 512 << 20  # bytes of rows in memory at once; llama.cpp's own default is 8 GiB
NO_ROOM = 64 << 20  # less free disk than this when the quantizer failed: the disk was the reason
_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")


def quantize(
    source: Path,
    target: Path,
    quantization: str,
    n_threads: int = 1,
    progress: Report = no_report,
    verbose: bool = False,
) -> None:
    """Write `target` from an f16 or f32 `source`; llama.cpp's log goes to stderr when verbose.

    Tensors whose rows are not whole blocks (256 values in the k types, 32 in the others) get the nearest type
    that fits: llama.cpp's rule. Raises InputError for an unknown type or a full disk, RunError when llama.cpp
    fails.
    """
    require_type(quantization)
    if not source.is_file():
        raise InputError(f"{source} is not a file: there is nothing to quantize")
    script = f"from {__name__} import main; raise SystemExit(main())"
    with complete_or_absent(target) as temporary:
        arguments = [str(source), str(temporary), quantization, str(n_threads)]
        try:
            _run(
                [sys.executable, "-P", "-c", script, *arguments],
                f"quantize {quantization}",
                progress,
                verbose,
            )
        except RunError:
            require_room(target.parent, NO_ROOM, f"quantizing to {quantization}")
            raise


def require_type(quantization: str) -> None:
    """Raises InputError for a type that is not one of LLM_TYPES."""
    if quantization not in LLM_TYPES:
        raise InputError(f"{quantization!r} is not a type of GGUF weights: choose {', '.join(LLM_TYPES)}")


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
    source, target, quantization, n_threads = sys.argv[1:]

    @llama_cpp.llama_log_callback
    def log(_level: int, text: bytes, _user_data: ctypes.c_void_p) -> None:
        try:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # nobody waits for the result any more
            os._exit(1)

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    options = llama_cpp.llama_model_quantize_default_params()
    options.nthread, options.ftype = int(n_threads), LLM_TYPES[quantization].ftype
    options.max_buf_size = MAX_BUFFER
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.pointer(options)):
        return 1
    return 0 if is_whole(Path(target)) else 1  # the quantizer notices a full disk late or never


if __name__ == "__main__":
    sys.exit(main())
