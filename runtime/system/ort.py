"""ONNX Runtime: a graph -> an opened session on the provider that really starts; its values stay on the device."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import OrtValue

from ...models.bundle import axis_profiles
from ...models.errors import INSTALL_WHERE, BundleError, InputError, RunError, install_command
from ...models.graph_io import TensorInfo
from .heap import trim_heap
from .machine import MAX_THREADS, default_threads
from .optimized_graphs import open_optimized

ort: Any = onnxruntime  # it has no types of its own

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Our names -> onnxruntime's, best first."""

_REMEDY = {
    "tensorrt": "install onnxruntime-gpu and TensorRT 10, or choose --provider cuda",
    "cuda": f"{install_command('cuda')} {INSTALL_WHERE}, in place of onnxruntime, and an NVIDIA driver; "
    "or choose --provider cpu",
    "coreml": "CoreML is part of onnxruntime on macOS only; choose --provider cpu",
    "cpu": f"{install_command('cpu')} {INSTALL_WHERE}",
}
_PROBE = (
    b'\x08\x08:3\n\x0c\n\x01x\x12\x01y"\x04Relu\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01b\x0f'
    b"\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x11"
)
"""The smallest graph there is, y = Relu(x): what a provider is started with to see whether it does."""
_PRODUCT = (
    b'\x08\x08:\\\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01pZ\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n'
    b"\x02\x08\x01\n\x02\x08\x04Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02\x08\x04\n\x02\x08\x01b\x13\n\x01y\x12\x0e\n\x0c"
    b"\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x01B\x04\n\x00\x10\n"
)
"""y = a b for uint8 a [1, 4] and int8 b [4, 1]: what shows whether this processor adds int8 products exactly."""


@dataclass(frozen=True)
class OrtOptions:
    """Where the encoders run."""

    provider: str = "auto"  # or one of PROVIDERS; auto is the best that really starts
    threads: int | None = None  # CPU threads of each graph; None: one per core
    engine_cache: Path | None = None  # TensorRT engines and optimized graphs are kept here, or made at every start
    tensorrt_fp16: bool = True  # let TensorRT compute in float16
    keep_optimized: bool = True  # large graphs are kept there as optimized for this machine too
    longest_s: float = 30.0  # the model's window: TensorRT builds for clips up to it

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MAX_THREADS:
            raise InputError(f"threads={self.threads} is not possible: it must be from 1 to {MAX_THREADS}")


class Session:
    """One opened graph. Several threads may run it at once: each run binds what it reads and writes."""

    def __init__(self, session: Any, path: Path, provider: str) -> None:
        self.path = path
        self.provider = provider
        self._session: Any = session
        self._outputs: tuple[str, ...] = tuple(output.name for output in session.get_outputs())
        self._device = "cuda" if provider in ("cuda", "tensorrt") else "cpu"

    def run(self, **inputs: NDArray[np.float32] | OrtValue) -> OrtValue:
        """The graph's first output, left on the provider's device; `.numpy()` brings it back.

        Inputs are arrays, or values another session left on the device. Raises RunError.
        """
        return self._run(inputs, self._outputs[:1])[0]

    def run_all(self, **inputs: NDArray[np.float32] | OrtValue) -> tuple[OrtValue, ...]:
        """The same with all outputs, in the graph's order."""
        return self._run(inputs, self._outputs)

    def _run(
        self, inputs: Mapping[str, NDArray[np.float32] | OrtValue], outputs: Sequence[str]
    ) -> tuple[OrtValue, ...]:
        if self._session is None:
            raise RunError(f"{self.path.name} was closed and cannot run")
        values = {name: _value(value) for name, value in inputs.items()}
        binding = self._session.io_binding()
        try:
            for name, value in values.items():
                binding.bind_ortvalue_input(name, value)
            for name in outputs:
                binding.bind_output(name, self._device)
            self._session.run_with_iobinding(binding)
            return tuple(binding.get_outputs())
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise RunError(f"{self.path.name} failed on {self.provider}: {_first_line(error)}") from error

    def close(self) -> None:
        """Free the graph's memory. Closing twice is fine."""
        self._session = None


def open_session(
    path: Path, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], options: OrtOptions
) -> Session:
    """Open a graph on the provider asked for and check that its interface is what the manifest says.

    Raises BundleError for an unreadable graph or another interface, InputError if the provider cannot start.
    """
    provider = choose_provider(options.provider)
    session = _create(path, provider, inputs, options)
    _check_interface(path, "inputs", session.get_inputs(), inputs)
    _check_interface(path, "outputs", session.get_outputs(), outputs)
    return Session(session, path, provider)


def choose_provider(wanted: str) -> str:
    """A name of PROVIDERS that starts on this machine. Raises InputError for any that does not."""
    if wanted == "auto":
        return next((name for name in PROVIDERS if probe(name) is None), "cpu")
    if wanted not in PROVIDERS:
        raise InputError(f"provider {wanted!r} is not known: choose auto, {', '.join(PROVIDERS)}")
    reason = probe(wanted)
    if reason is not None:
        raise InputError(f"provider {wanted} does not start here ({reason}): {_REMEDY[wanted]}")
    return wanted


def probe(provider: str) -> str | None:
    """None when a provider really starts, else why not; onnxruntime falls back to the CPU in silence."""
    if provider not in _PROBED:
        _PROBED[provider] = _start(PROVIDERS[provider])
    return _PROBED[provider]


_PROBED: dict[str, str | None] = {}


def _start(name: str) -> str | None:
    available: list[str] = ort.get_available_providers()
    if name not in available:
        return f"this onnxruntime has only {', '.join(available)}"
    if name == PROVIDERS["cuda"] and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # from NVIDIA's own wheels, where they are installed
    with _silenced_logger():
        try:
            session = ort.InferenceSession(_PROBE, providers=[name])
        except Exception as error:  # onnxruntime's exceptions share no public base
            return _first_line(error)
    return None if name in session.get_providers() else "its libraries or its device are missing"


def session_settings(threads: int | None = None) -> Any:
    """How every session is opened: onnxruntime's SessionOptions. threads: None is one per core."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = threads or default_threads()
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")  # graphs and llama.cpp share the cores
    # Planning which value may lie where another one lay takes 30 s for the 6,500 nodes of an int8 Whisper; without the
    # plan the arena hands out the same memory again just as well.
    settings.enable_mem_reuse = False
    # Nor one block for a whole run, remembered for each length of sound: blocks of all sizes fill the arena with holes.
    settings.enable_mem_pattern = False
    if _shared_arena():
        settings.add_session_config_entry("session.use_env_allocators", "1")
    if sums_overflow():
        settings.add_session_config_entry("session.x64quantprecision", "1")
    return settings


@cache
def _shared_arena() -> bool:
    """Whether graphs on the CPU share one arena for what they compute: they run in turn, each would keep its own."""
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    defaults = ort.OrtArenaCfg(0, -1, -1, -1)
    with suppress(Exception):  # onnxruntime's exceptions share no public base; another library may have made one
        ort.create_and_register_allocator(memory, defaults)
        return True
    return False


def release_memory() -> None:
    """Give back what closed graphs have left in the arena and in the C library's heap."""
    if _shared_arena():
        session = ort.InferenceSession(_PROBE, session_settings(1), providers=[PROVIDERS["cpu"]])
        shrinking = ort.RunOptions()
        shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        session.run(None, {"x": np.zeros(1, np.float32)}, shrinking)
    trim_heap()


@cache
def sums_overflow() -> bool:
    """Whether int8 products are added in 16 bits here, as x86 without VNNI does: 8-bit weights overflow that.

    onnxruntime then has slower products that are exact; where they are not needed they would only be slower.
    """
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = 1
    session = ort.InferenceSession(_PRODUCT, settings, providers=[PROVIDERS["cpu"]])
    found = session.run(None, {"a": np.full((1, 4), 255, np.uint8), "b": np.full((4, 1), 127, np.int8)})
    return int(found[0].item()) != 4 * 255 * 127


def _create(path: Path, provider: str, inputs: Sequence[TensorInfo], options: OrtOptions) -> Any:
    if not path.is_file():
        raise BundleError(f"{path} is missing: the bundle is not whole")
    settings = partial(session_settings, options.threads)
    folder = options.engine_cache if provider == "cpu" and options.keep_optimized else None
    if folder is not None and (kept := open_optimized(path, folder, settings)) is not None:
        return kept
    try:
        session = ort.InferenceSession(str(path), settings(), providers=_chain(provider, inputs, options))
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise BundleError(f"{path} cannot be opened by onnxruntime: {_first_line(error)}") from error
    started: list[str] = session.get_providers()
    if PROVIDERS[provider] not in started:
        raise RunError(f"{path.name} did not start on {provider}, only on {', '.join(started)}: {_REMEDY[provider]}")
    return session


def _chain(provider: str, inputs: Sequence[TensorInfo], options: OrtOptions) -> list[tuple[str, dict[str, Any]]]:
    """The provider and those below it that take the operators it lacks."""
    chain: list[tuple[str, dict[str, Any]]] = []
    if provider == "tensorrt":
        chain.append((PROVIDERS["tensorrt"], tensorrt_options(inputs, options)))
    if provider in ("tensorrt", "cuda"):
        chain.append((PROVIDERS["cuda"], {}))
    if provider == "coreml":
        chain.append((PROVIDERS["coreml"], {"ModelFormat": "MLProgram"}))
    return [*chain, (PROVIDERS["cpu"], {})]


def tensorrt_options(inputs: Sequence[TensorInfo], options: OrtOptions) -> dict[str, Any]:
    """What the TensorRT provider is told: precision, the lengths to build for, where engines are kept."""
    chosen: dict[str, Any] = {"trt_fp16_enable": options.tensorrt_fp16}
    if any(isinstance(size, str) for tensor in inputs for size in tensor.shape):
        for index, key in enumerate(("min", "opt", "max")):
            chosen[f"trt_profile_{key}_shapes"] = ",".join(_profile(tensor, index, options) for tensor in inputs)
    if options.engine_cache is not None:
        options.engine_cache.mkdir(parents=True, exist_ok=True)
        for cache in ("engine", "timing"):
            chosen[f"trt_{cache}_cache_enable"] = True
            chosen[f"trt_{cache}_cache_path"] = str(options.engine_cache)
    return chosen


def _profile(tensor: TensorInfo, index: int, options: OrtOptions) -> str:
    profiles: Mapping[str, tuple[int, int, int]] = axis_profiles(options.longest_s)
    sizes = (profiles[size][index] if isinstance(size, str) else size for size in tensor.shape)
    return f"{tensor.name}:{'x'.join(map(str, sizes))}"


def _check_interface(path: Path, kind: str, found: Sequence[Any], expected: Sequence[TensorInfo]) -> None:
    actual = [(node.name, tuple(node.shape), node.type) for node in found]
    wanted = [(tensor.name, tuple(tensor.shape), "tensor(float)") for tensor in expected]
    if sorted(actual, key=str) != sorted(wanted, key=str):
        shown = ", ".join(f"{name} {list(shape)}" for name, shape, _ in actual)
        needed = ", ".join(f"{name} {list(shape)}" for name, shape, _ in wanted)
        raise BundleError(
            f"{path} has the {kind} {shown} where the manifest says {needed}: it is another model's graph"
        )


def _value(value: NDArray[np.float32] | OrtValue) -> OrtValue:
    if isinstance(value, OrtValue):
        return value
    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value, dtype=np.float32))


def _first_line(error: Exception) -> str:
    """What happened, without onnxruntime's code in front."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].split(" : ", 3)[-1][:200]


@contextmanager
def _silenced_logger() -> Generator[None]:
    """onnxruntime prints pages when a provider's library is missing; the probe says it in one line."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)
