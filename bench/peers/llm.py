"""Contestants for prefill and decoding: our loop, and the functions of llama.cpp and of a fork in the barest loops.

decode    110 ids are read (not timed), then ids are chosen one by one; both must say the same, up to
          a near tie where ours leaves flash attention out (runtime/llm/llama.py, NARROW_HEAD); the fork, ik_llama.cpp,
          has kernels of its own for a CPU, which round otherwise
prefill   110 positions into an empty cache, up to the first id: ours reads prefix, audio embeddings and suffix, as for
          a real question, the others 110 ids at once
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...models.bundle import Manifest, read_manifest
from ...models.errors import InputError, RunError
from ...models.prompt import first_task
from ..result import OURS
from .task import SEED, Contestant, Outcome, Task, Work

if TYPE_CHECKING:
    from ...runtime.llm.session import Llm

N_CTX = 512
_FORK = "ik-llama-cpp-python==0.1.5"
_AUDIO_RMS = 0.02  # about that of an embedding


def prompt_ids(manifest: Manifest, n: int) -> list[int]:
    """What begins a conversation, and ids drawn at random, the same for everyone."""
    start, vocab = manifest.prompt.start_ids, manifest.spec.llm.vocab
    drawn = np.random.default_rng(SEED).integers(1000 % vocab, vocab, n - len(start))
    return [*start, *drawn.tolist()]


def open_our_decode(task: Task) -> Work:
    """Llm.generate and the detokenizer, as the engine runs them."""
    from ...runtime.llm.sampling import Generation

    llm, manifest = _our_llm(task)
    ids = prompt_ids(manifest, task.positions)
    # an answer to random ids may end at once: let it go on, as the peer does
    generation = Generation(max_new_tokens=task.tokens, ignore_eos=True)

    def read() -> None:
        llm.restart()
        llm.question(ids)

    def decode() -> Outcome:
        text = llm.detokenizer()
        generated = list[int]()
        for token in llm.generate(generation):
            generated.append(token)
            text.add(token)
        return Outcome(tokens=tuple(generated))

    return Work(decode, read)


def open_our_prefill(keep_prefix: bool) -> Callable[[Task], Work]:
    """Llm.prefill of a whole question. keep_prefix: as in a conversation, where the prefix's KV is there already."""

    def opened(task: Task) -> Work:
        llm, manifest = _our_llm(task)
        prompt = first_task(manifest.prompt)
        n_audio = task.positions - sum(map(len, llm.prompts.around(prompt)))
        if n_audio < 1:
            raise InputError(f"{task.positions} positions do not hold the prompt's own {task.positions - n_audio}")
        drawn = np.random.default_rng(SEED).normal(0, _AUDIO_RMS, (n_audio, manifest.spec.llm.hidden))
        audio_tokens = drawn.astype(np.float32)

        def run() -> Outcome:
            if not keep_prefix:
                llm.restart()
            llm.prefill(audio_tokens, prompt)
            return Outcome(shape=(llm.n_past,))

        return Work(run)

    return opened


def open_decode(task: Task, opened: Callable[[Task], Loop]) -> Work:
    """One id after the other, each the likeliest."""
    bare = opened(task)

    def decode() -> Outcome:
        generated = [bare.sample()]
        while len(generated) < task.tokens:
            bare.feed(generated[-1:])
            generated.append(bare.sample())
        return Outcome(tokens=tuple(generated))

    return Work(decode, bare.read)


def open_prefill(task: Task, opened: Callable[[Task], Loop]) -> Work:
    """All ids in one batch."""
    bare = opened(task)

    def prefill() -> Outcome:
        bare.read()
        bare.sample()
        return Outcome(shape=(task.positions,))

    return Work(prefill)


class Loop(Protocol):
    """A model and a context with nothing around them, opened with our numbers and the library's own defaults."""

    def read(self) -> None:
        """The whole prompt, into an empty cache."""
        ...

    def feed(self, ids: list[int]) -> None:
        """One batch."""
        ...

    def sample(self) -> int:
        """The likeliest id after the last."""
        ...


class LlamaCpp:
    """llama.cpp, and its own greedy sampler."""

    def __init__(self, task: Task) -> None:
        import llama_cpp

        self._c: Any = llama_cpp
        path, manifest = _file(task)
        self._silent = self._c.llama_log_callback(_be_silent)
        self._c.llama_log_set(self._silent, ctypes.c_void_p(0))
        self._c.llama_backend_init()
        options = self._c.llama_model_default_params()
        options.n_gpu_layers = task.n_gpu_layers
        self._model = self._c.llama_model_load_from_file(str(path).encode(), options)
        parameters = self._c.llama_context_default_params()
        parameters.n_ctx = N_CTX
        parameters.n_threads = parameters.n_threads_batch = task.threads
        self._context = self._model and self._c.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise RunError(f"llama.cpp cannot open {path}")
        self._sampler = self._c.llama_sampler_init_greedy()
        self._ids = prompt_ids(manifest, task.positions)

    def read(self) -> None:
        """The whole prompt, into an empty cache."""
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)
        self.feed(self._ids)

    def feed(self, ids: list[int]) -> None:
        """One batch."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        if self._c.llama_decode(self._context, self._c.llama_batch_get_one(array, len(ids))) != 0:
            raise RunError("llama.cpp failed to compute")

    def sample(self) -> int:
        """The likeliest id after the last."""
        return int(self._c.llama_sampler_sample(self._sampler, self._context, -1))


class IkLlamaCpp:
    """The fork, by the classes of its Python package; that one's sampler copies every logit in Python, so not by it."""

    def __init__(self, task: Task) -> None:
        library: Any = import_module("ik_llama_cpp._internals")
        path, manifest = _file(task)
        self._batch = library.make_batch_range
        self._model = library.IkModel(str(path), n_gpu_layers=task.n_gpu_layers)
        self._context = library.IkContext(self._model, n_ctx=N_CTX, n_threads=task.threads)
        self._ids = prompt_ids(manifest, task.positions)
        self._n_past = 0

    def read(self) -> None:
        """The whole prompt, into an empty cache."""
        self._context.kv_cache_clear()
        self._n_past = 0
        self.feed(self._ids)

    def feed(self, ids: list[int]) -> None:
        """One batch."""
        if self._context.decode(self._batch(ids, pos_start=self._n_past)) != 0:
            raise RunError("ik_llama.cpp failed to compute")
        self._n_past += len(ids)

    def sample(self) -> int:
        """The likeliest id after the last."""
        logits = np.ctypeslib.as_array(self._context.get_logits(), (self._model.n_vocab,))
        return int(logits.argmax())


def _be_silent(_level: int, _text: bytes, _user: object) -> None:
    """What llama.cpp logs is of no use here."""


def _our_llm(task: Task) -> tuple[Llm, Manifest]:
    from ...runtime.llm.options import LlmOptions
    from ...runtime.llm.session import Llm

    path, manifest = _file(task)
    options = LlmOptions(n_ctx=N_CTX, n_threads=task.threads, n_gpu_layers=task.n_gpu_layers)
    return Llm(path, manifest, None, options), manifest


def _file(task: Task) -> tuple[Path, Manifest]:
    if task.bundle is None:
        raise InputError("a bundle is needed: give --bundle DIR")
    manifest = read_manifest(task.bundle)
    return task.bundle / manifest.llm.file, manifest


def contestants(task: Task) -> dict[str, Contestant]:
    """In the order of running."""
    if task.part == "decode":
        return {
            OURS: Contestant(open_our_decode),
            "llama.cpp": Contestant(partial(open_decode, opened=LlamaCpp)),
            "ik_llama.cpp": Contestant(partial(open_decode, opened=IkLlamaCpp), pip=_FORK),
        }
    return {
        OURS: Contestant(open_our_prefill(keep_prefix=False)),
        "llama.cpp": Contestant(partial(open_prefill, opened=LlamaCpp)),
        "ik_llama.cpp": Contestant(partial(open_prefill, opened=IkLlamaCpp), pip=_FORK),
        "auricle, prefix kept": Contestant(open_our_prefill(keep_prefix=True)),
    }
