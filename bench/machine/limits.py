"""Limits of this machine: products of matrices in float and in integers, and reading memory, per second.

Measured by the same library, with as many threads, in the same run as what is compared with it. Each figure is the
best of several samples: a limit is what is possible, and whoever shares the machine only takes from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ...models.errors import RunError
from ...runtime.system.machine import memory_bytes
from ...runtime.system.ort import PROVIDERS, session_settings
from ..result import Measure

ort: Any = onnxruntime  # it has no types of its own
GROUP = "machine"
ROWS, NARROW, WIDE = 1500, 1280, 5120
"""Whisper-large's feed-forward: rows of a window, width, inner width."""
READ_BYTES = 1 << 29  # many times any cache
_GPU_READ_BYTES = 1 << 32
_PATIENCE_S = 6.0  # then two samples will do: a small board takes seconds for each
_AGREE = 0.95  # how near the second best comes to the best when that is no accident
_GPU_PAIRS = 24  # products per run on a GPU, where one is over before it was launched

Tick = Callable[[], None]


@dataclass(frozen=True)
class Limits:
    """A sample per try; `best` of them is the limit. A figure that the provider cannot give has no samples."""

    fp32_gflops: tuple[float, ...]
    int8_gops: tuple[float, ...]
    """uint8 x int8 with constant weights, summed in int32."""
    read_gb_s: tuple[float, ...]
    fp16_gflops: tuple[float, ...] = ()
    """On a GPU only: a CPU computes float16 as float32."""

    def product(self, precision: str) -> float:
        """GFLOP/s (GOP/s) that products reach in fp32, fp16 or int8; that of fp32 where a precision has none."""
        samples = {"int8": self.int8_gops, "fp16": self.fp16_gflops}.get(precision) or self.fp32_gflops
        return max(samples)

    @property
    def read(self) -> float:
        """GB/s."""
        return max(self.read_gb_s)

    def measures(self) -> list[Measure]:
        """For a record."""
        found = (
            Measure(GROUP, "fp32", "GFLOP/s", self.fp32_gflops, "higher"),
            Measure(GROUP, "fp16", "GFLOP/s", self.fp16_gflops, "higher"),
            Measure(GROUP, "int8", "GOP/s", self.int8_gops, "higher"),
            Measure(GROUP, "read", "GB/s", self.read_gb_s, "higher"),
        )
        return [measure for measure in found if measure.samples]


def together(first: Limits, second: Limits) -> Limits:
    """What two measurements of the same machine saw, before and after something else."""
    return Limits(
        first.fp32_gflops + second.fp32_gflops,
        first.int8_gops + second.int8_gops,
        first.read_gb_s + second.read_gb_s,
        first.fp16_gflops + second.fp16_gflops,
    )


def measure(
    threads: int,
    llm_threads: int,
    provider: str = "cpu",
    offloaded: bool = False,
    n: int = 5,
    tick: Tick | None = None,
    read_bytes: int | None = None,
) -> Limits:
    """Some seconds of work. threads: of the encoders; llm_threads: of the language model, whose weights are read.

    provider: one of runtime.ort.PROVIDERS, that of the encoders; offloaded: the weights lie in the GPU's memory.
    read_bytes: how much one sample reads; much more than the caches hold by default. Raises RunError.
    """
    gpu = provider in ("cuda", "tensorrt")
    device = "cuda" if gpu else "cpu"
    try:
        fp32 = _rates(lambda: _products(np.float32, threads, device), n, tick)
        fp16 = _rates(lambda: _products(np.float16, threads, device), n, tick) if gpu else ()
        int8 = () if gpu else _rates(lambda: _integers(threads), n, tick)
        size = read_bytes or (_GPU_READ_BYTES if gpu and offloaded else _affordable())
        ways = [lambda: _gemv(size, llm_threads, device if offloaded else "cpu")]
        if not (gpu and offloaded):
            ways.append(lambda: _largest(size, llm_threads))
        read = max((_rates(way, n, tick) for way in ways), key=max)
    except MemoryError:
        raise RunError("no memory is left to measure this machine's limits: close other programs") from None
    except Exception as error:  # onnxruntime's exceptions share no public base
        if type(error).__module__.startswith("onnxruntime"):
            raise RunError(f"onnxruntime could not measure this machine's limits: {error}") from None
        raise
    return Limits(fp32, int8, read, fp16)


Work = tuple[Callable[[], object], float]
"""What to run, and how much it is in units of 1e9."""


def _rates(prepare: Callable[[], Work], n: int, tick: Tick | None) -> tuple[float, ...]:
    """n samples, and up to four times as many until the best was reached twice: a busy machine hides its limit."""
    work, amount = prepare()
    work()
    rates: list[float] = []
    deadline = time.perf_counter() + _PATIENCE_S
    while len(rates) < n or (len(rates) < 4 * n and sorted(rates)[-2:][0] < _AGREE * max(rates)):
        start = time.perf_counter()
        work()
        rates.append(amount / (time.perf_counter() - start))
        if len(rates) > 1 and time.perf_counter() > deadline:
            break
    if tick:
        tick()
    return tuple(rates)


def _products(dtype: type[np.floating[Any]], threads: int, device: str) -> Work:
    """Up to Whisper's inner width and back, with constant weights; one number comes out."""
    pairs = 1 if device == "cpu" else _GPU_PAIRS
    rng = np.random.default_rng(0)
    up = (rng.standard_normal((NARROW, WIDE), np.float32) / NARROW**0.5).astype(dtype)
    down = (rng.standard_normal((WIDE, NARROW), np.float32) / WIDE**0.5).astype(dtype)
    nodes: list[onnx.NodeProto] = []
    name = "x"
    for pair in range(pairs):
        nodes.append(helper.make_node("MatMul", [name, "up"], [f"wide{pair}"]))
        nodes.append(helper.make_node("MatMul", [f"wide{pair}", "down"], [f"x{pair}"]))
        name = f"x{pair}"
    x = rng.standard_normal((ROWS, NARROW), np.float32).astype(dtype)
    run = _graph(nodes, name, {"up": up, "down": down}, {"x": x}, threads, device)
    return run, pairs * 2 * 2 * ROWS * NARROW * WIDE / 1e9


def _integers(threads: int) -> Work:
    """The product that onnxruntime's quantized graphs consist of."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (ROWS, NARROW), np.uint8)
    weights = {
        "w": rng.integers(-64, 64, (NARROW, WIDE), np.int8),
        "x_zero": np.array(128, np.uint8),
        "w_zero": np.zeros(WIDE, np.int8),
    }
    node = helper.make_node("MatMulInteger", ["x", "w", "x_zero", "w_zero"], ["wide"])
    return _graph([node], "wide", weights, {"x": x}, threads, "cpu"), 2 * ROWS * NARROW * WIDE / 1e9


def _gemv(size: int, threads: int, device: str) -> Work:
    """One row through a matrix too large for any cache: what decoding is."""
    width = 1 << 12
    rows = max(1, size // 4 // width)
    inputs = {"x": np.ones((1, rows), np.float32), "w": np.ones((rows, width), np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _graph([node], "y", {}, inputs, threads, device), 4 * rows * width / 1e9


def _largest(size: int, threads: int) -> Work:
    """Every thread looks for the largest number in its part."""
    parts = np.array_split(np.ones(size // 8, np.int64), threads)

    def run() -> object:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(np.max, parts))

    return run, size // 8 * 8 / 1e9


def _graph(
    nodes: list[onnx.NodeProto],
    result: str,
    weights: dict[str, NDArray[Any]],
    inputs: dict[str, NDArray[Any]],
    threads: int,
    device: str,
) -> Callable[[], object]:
    """A session that leaves its inputs on the device and brings one row of its result to the host."""
    of = helper.np_dtype_to_tensor_dtype
    kind = TensorProto.INT32 if nodes[0].op_type == "MatMulInteger" else of(next(iter(inputs.values())).dtype)
    bounds = {name: np.array([value], np.int64) for name, value in (("begin", 0), ("end", 1))}
    constants = [numpy_helper.from_array(value, name) for name, value in {**weights, **bounds}.items()]
    slice_ = helper.make_node("Slice", [result, "begin", "end"], ["row"])
    graph = helper.make_graph(
        [*nodes, slice_],
        "limits",
        [helper.make_tensor_value_info(name, of(value.dtype), value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info("row", kind, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    settings = session_settings(threads)
    chain = [PROVIDERS["cuda"], PROVIDERS["cpu"]] if device == "cuda" else [PROVIDERS["cpu"]]
    session = ort.InferenceSession(model.SerializeToString(), settings, providers=chain)
    values = {name: ort.OrtValue.ortvalue_from_numpy(value, device, 0) for name, value in inputs.items()}

    def run() -> object:
        binding = session.io_binding()
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("row", device)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0].numpy()

    return run


def _affordable() -> int:
    """Half a gigabyte, or an eighth of a small machine."""
    memory = memory_bytes()
    return min(READ_BYTES, memory // 8) if memory else READ_BYTES
