"""Silero VAD's graph for several frames in one run: `python -m auricle.export.vad FILE OUT`.

The authors' graph takes one frame of 32 ms. What it computes is 0.7 million products; reading its weights anew and
walking its branches costs more than they do. Here the frames that have arrived are one batch up to the LSTM, which
reads them as a sequence, and convolutions are matrix products.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..models.errors import AuricleError, CheckpointError, InputError
from .graphs.builder import Operators
from .graphs.onnx_graph import read_model, write_model

OPSET, IR_VERSION = 17, 8
_SAMPLES, _HOP, _BINS, _HIDDEN = 576, 128, 129, 128
_TAPS = ((0, 1, 2), (0, 1, 2), (1, 2), (1,))
"""Of each convolution's kernel of 3 those that meet sound: the third has two columns to read, the fourth one."""

_Weights = dict[str, NDArray[np.float32]]


def several_frames(original: onnx.ModelProto) -> onnx.ModelProto:
    """silero_vad_16k_op15.onnx of silero-vad 6.2.3 -> a graph of frames [k, 576], h and c [1, 1, 128].

    It gives probabilities [k, 1], h and c. Raises CheckpointError for another graph.
    """
    weights: _Weights = {each.name: numpy_helper.to_array(each) for each in original.graph.initializer}
    ops = Operators("vad")
    try:
        hidden = _encode(ops, weights)
        _decode(ops, weights, hidden)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"this is not Silero VAD's graph for 16 kHz (6.2.3): {error}") from error
    state = [1, 1, _HIDDEN]
    graph = helper.make_graph(
        ops.take(),
        "silero_vad",
        [_value("frames", ["k", _SAMPLES]), _value("h", state), _value("c", state)],
        [_value("probabilities", ["k", 1]), _value("h_out", state), _value("c_out", state)],
        ops.constants(),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _encode(ops: Operators, weights: _Weights) -> str:
    """frames -> [k, 1, 128]: four windows' spectra, four convolutions, the second and third in steps of two."""
    padded = ops.add("Pad", ["frames", _ints(ops, 0, 0, 0, 64)], "padded", mode="reflect")
    hops = ops.add("Reshape", [padded, _ints(ops, -1, 5, _HOP)], "hops")
    windows = _joined(ops, "windows", [_cut(ops, hops, f"hops_{n}", n, n + 4) for n in range(2)])
    basis = ops.keep("stft", weights["model.stft.forward_basis_buffer"][:, 0].T.copy())
    spectrum = ops.add("MatMul", [windows, basis], "spectrum")
    ops.add("Split", [spectrum, _ints(ops, _BINS, _BINS)], "real", "imaginary", axis=2)
    squares = [ops.add("Mul", [part, part], f"{part}_squared") for part in ("real", "imaginary")]
    magnitude = ops.add("Sqrt", [ops.add("Add", squares, "power")], "magnitude")

    both_ends, front = _ints(ops, 0, 1, 0, 0, 1, 0), _ints(ops, 0, 1, 0, 0, 0, 0)
    padded = ops.add("Pad", [magnitude, both_ends], "magnitude_padded")
    columns = [_cut(ops, padded, f"magnitude_{n}", n, n + 4) for n in range(3)]
    x = _dense(ops, weights, 0, _joined(ops, "columns_0", columns))
    padded = ops.add("Pad", [x, front], "x_0_padded")
    columns = [_cut(ops, padded, f"x_0_{n}", n, n + 3, 2) for n in range(3)]
    x = _dense(ops, weights, 1, _joined(ops, "columns_1", columns))
    x = _dense(ops, weights, 2, ops.add("Reshape", [x, _ints(ops, -1, 1, 2 * 64)], "columns_2"))
    return _dense(ops, weights, 3, x)


def _decode(ops: Operators, weights: _Weights, hidden: str) -> None:
    """The frames as a sequence of one stream -> the graph's outputs."""

    def gates(name: str) -> NDArray[np.float32]:
        """torch's order of gates -> ONNX's."""
        i, f, g, o = np.split(weights[f"model.decoder.rnn.{name}"], 4)
        return np.concatenate([i, o, f, g])

    inputs = ops.keep("lstm_inputs", gates("weight_ih")[None])
    recurrence = ops.keep("lstm_recurrence", gates("weight_hh")[None])
    bias = ops.keep("lstm_bias", np.concatenate([gates("bias_ih"), gates("bias_hh")])[None])
    ops.add("LSTM", [hidden, inputs, recurrence, bias, "", "h", "c"], "y", "h_out", "c_out", hidden_size=_HIDDEN)
    rows = ops.add("Relu", [ops.add("Reshape", ["y", _ints(ops, -1, _HIDDEN)], "rows")], "positive")
    weight = ops.keep("score_weight", weights["model.decoder.decoder.2.weight"][0].copy())
    bias = ops.keep("score_bias", weights["model.decoder.decoder.2.bias"])
    ops.add("Sigmoid", [ops.add("Gemm", [rows, weight, bias], "scores")], "probabilities")


def _dense(ops: Operators, weights: _Weights, number: int, columns: str) -> str:
    """A convolution whose input columns lie side by side, and its ReLU."""
    kernel = weights[f"model.encoder.{number}.reparam_conv.weight"]
    matrix = ops.keep(f"weight_{number}", np.concatenate([kernel[:, :, tap].T for tap in _TAPS[number]]))
    bias = ops.keep(f"bias_{number}", weights[f"model.encoder.{number}.reparam_conv.bias"])
    product = ops.add("MatMul", [columns, matrix], f"product_{number}")
    return ops.add("Relu", [ops.add("Add", [product, bias], f"sum_{number}")], f"x_{number}")


def _joined(ops: Operators, name: str, parts: list[str]) -> str:
    return ops.add("Concat", parts, name, axis=2)


def _cut(ops: Operators, x: str, name: str, start: int, end: int, step: int = 1) -> str:
    """Columns start to end of x [k, columns, d]."""
    return ops.add("Slice", [x, *(_ints(ops, value) for value in (start, end, 1, step))], name)


def _ints(ops: Operators, *values: int) -> str:
    return ops.constant(list(values), "int64")


def _value(name: str, shape: list[str | int] | list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def main(arguments: list[str] | None = None) -> int:
    """FILE, the package's graph -> OUT. Auricle's errors become one sentence and an exit status."""
    parser = argparse.ArgumentParser(prog="python -m auricle.export.vad", description=(__doc__ or "").split(":")[0])
    parser.add_argument("file", type=Path, help="silero_vad_16k_op15.onnx of silero-vad 6.2.3")
    parser.add_argument("out", type=Path, help="the graph that is written")
    given = parser.parse_args(arguments)
    try:
        if not given.file.is_file():
            raise InputError(
                f"{given.file} is not there: take silero_vad/data/silero_vad_16k_op15.onnx of silero-vad 6.2.3"
            )
        write_model(several_frames(read_model(given.file)), given.out)
    except AuricleError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
