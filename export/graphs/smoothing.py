"""Smoothing: a graph -> the same function, the channels of what each linear layer reads brought to like levels.

A trained model has channels a hundred times louder than the rest, which leave few of 256 steps to those. Divided by
s per channel, with the layer's weights multiplied by s, nothing changes but the rounding (SmoothQuant, Xiao et al.,
arXiv 2211.10438); a channel's own middle z goes into the bias in the same way (Wei et al., arXiv 2304.09145):

    LayerNorm        its weight / s, (its bias - z) / s
    attention's v    the columns of v's layer / s, (its bias - z) / s: rows of a softmax add up to 1
    anything else    a product by 1 / s in the graph, where it is worth that

s = reach^a / weight^(1 - a), the strength a found for each input by the error that int8 makes on the feeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..progress import Report, counter, no_report
from .attention import find_attention
from .linear_layers import Floats, Layer, Named, bias_of, channel_error, chunks, linear_layers, tap, write_tensors
from .onnx_graph import Arrays, read_model
from .patterns import Attention, Graph
from .rounding import MOST_INPUTS, best_zero, by_tensor, rounded_weight

STRENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9)
_WORTH = 0.9  # of the error without: what a product in the graph must bring it to
_QUIETEST = 1.0  # medians of a channel's reach: quieter channels may be louder in other recordings
_ROWS = 192  # of each feed are looked at
_NOTHING = 1e-9
_SMOOTH = "/smooth"


@dataclass(frozen=True)
class Site:
    """A value that linear layers read, and what makes it, where that can be changed for nothing."""

    source: str
    layers: tuple[Layer, ...]
    maker: onnx.NodeProto | Layer | None
    """A LayerNormalization, or the layer of an attention's v, that nobody else reads."""

    @property
    def width(self) -> int:
        """Channels of the value."""
        return self.layers[0].weight.dims[0]


@dataclass(frozen=True)
class Balance:
    """What is taken from each channel, and what it is divided by then: float32 [d]."""

    shift: Floats
    scale: Floats

    def apply(self, rows: Floats) -> Floats:
        """[n, d] -> [n, d]."""
        return np.divide(rows - self.shift, self.scale, dtype=np.float32)


@dataclass
class _Seen:
    """What a value was on the feeds."""

    low: Floats = field(default_factory=lambda: np.full(1, np.inf, np.float32))
    high: Floats = field(default_factory=lambda: np.full(1, -np.inf, np.float32))
    rows: list[Floats] = field(default_factory=list)

    def add(self, rows: Floats) -> None:
        self.low = np.minimum(self.low, rows.min(axis=0))
        self.high = np.maximum(self.high, rows.max(axis=0))
        self.rows.append(rows[:: max(1, len(rows) // _ROWS)])

    @property
    def all_rows(self) -> Floats:
        """[n, d] of all feeds."""
        return np.concatenate(self.rows)


def smooth(path_in: Path, path_out: Path, feeds: Sequence[Arrays], report: Report = no_report) -> dict[str, int]:
    """Write the smoothed graph, float still; returns by name the level of zero that suits the rows of each input.

    Without feeds nothing is known of levels: products stand where a model would have them, and change nothing.
    """
    model = read_model(path_in, weights=False)
    sites = {site.source: site for site in find_sites(model)}
    tick = counter(report, f"smooth {path_out.name.split('.')[0]}", len(sites) * (len(feeds) + 1))
    found: dict[str, Balance] = {}
    zeros: dict[str, int] = {}
    for chunk in chunks(sites):
        seen: dict[str, _Seen] = {}
        for feed in feeds:
            for name, values in tap(path_in, chunk, feed).items():
                seen.setdefault(name, _Seen()).add(values.reshape(-1, values.shape[-1]))
                tick(1)
        for name in chunk:
            balance = None
            if sites[name].width <= MOST_INPUTS:
                balance = _balance(sites[name], seen[name], path_in.parent) if feeds else _neutral(sites[name])
            tick(1)
            if balance is not None:
                found[name] = balance
            if feeds:
                read = name + _SMOOTH if balance is not None and sites[name].maker is None else name
                zeros[read] = best_zero(balance.apply(seen[name].all_rows) if balance else seen[name].all_rows)
    _Rewriter(model, path_in.parent).write([(sites[name], balance) for name, balance in found.items()], path_out)
    return zeros


def find_sites(model: onnx.ModelProto) -> list[Site]:
    """Every value that linear layers read, in order."""
    graph = Graph(model.graph)
    layers = linear_layers(model)
    makers: dict[str, onnx.NodeProto | Layer] = {
        node.output[0]: node for node in model.graph.node if node.op_type == "LayerNormalization"
    }
    for attention in find_attention(model).values():
        if (made := _layer_of_values(graph, layers, attention)) is not None:
            makers[attention.nodes[-1].output[0]] = made
    readers: dict[str, list[Layer]] = {}
    for layer in layers.values():
        readers.setdefault(layer.source, []).append(layer)
    outputs = {value.name for value in model.graph.output}
    sites: list[Site] = []
    for source, reading in readers.items():
        alone = len(graph.users(source)) == len(reading) and source not in outputs
        sites.append(Site(source, tuple(reading), makers.get(source) if alone else None))
    return sites


def _layer_of_values(graph: Graph, layers: Mapping[str, Layer], attention: Attention) -> Layer | None:
    """The layer that makes v, when nothing but the attention reads it."""
    name = attention.inputs[2]
    if (add := graph.made_by(name, "Add")) is not None:
        name = next((i for i in add.input if graph.constant(i) is None), "")
    product = graph.made_by(name, "MatMul")
    return None if product is None else layers.get(product.name)


def _neutral(site: Site) -> Balance | None:
    zeros, ones = np.zeros(site.width, np.float32), np.ones(site.width, np.float32)
    return Balance(zeros, ones) if site.maker is None else None


def _balance(site: Site, seen: _Seen, directory: Path) -> Balance | None:
    """The best of the strengths, with middles taken off or not; None when no change is worth it."""
    weight = np.concatenate([layer.values(directory) for layer in site.layers], axis=1)
    rows = seen.all_rows
    wanted = rows @ weight
    zeros: Floats = np.zeros(len(weight), np.float32)
    ones: Floats = np.ones(len(weight), np.float32)

    def error(balance: Balance) -> float:
        low, high = balance.apply(seen.low), balance.apply(seen.high)
        rounded = by_tensor(balance.apply(rows), float(low.min()), float(high.max()))
        made = rounded @ rounded_weight(weight * balance.scale[:, None])
        return channel_error(np.add(made, balance.shift @ weight, dtype=np.float32), wanted)

    plain = error(Balance(zeros, ones))
    shifts = [zeros] if site.maker is None else [zeros, (seen.low + seen.high) / np.float32(2)]
    trials = [Balance(shift, scale) for shift in shifts for scale in _scales(seen, shift, weight)]
    errors = [error(trial) for trial in trials]
    best = int(np.argmin(errors))
    return trials[best] if errors[best] < plain * (_WORTH if site.maker is None else 1.0) else None


def _scales(seen: _Seen, shift: Floats, weight: Floats) -> Iterator[Floats]:
    reach = np.maximum(np.abs(seen.low - shift), np.abs(seen.high - shift))
    reach = np.maximum(reach, _QUIETEST * np.median(reach)) + _NOTHING
    heaviest = np.abs(weight).max(axis=1) + _NOTHING
    for strength in STRENGTHS:
        scale = reach**strength / heaviest ** (1 - strength)
        yield (scale / np.exp(np.log(scale).mean())).astype(np.float32)


@dataclass
class _Change:
    """Of one layer: W becomes W * rows / columns, its bias (bias + given @ W - shift) / columns."""

    layer: Layer
    rows: Floats
    given: Floats
    columns: Floats
    shift: Floats

    @classmethod
    def none(cls, layer: Layer) -> _Change:
        n_in, n_out = layer.weight.dims
        zeros, ones = (np.full(n, v, np.float32) for n, v in ((n_in, 0), (n_in, 1)))
        return cls(layer, ones, zeros, np.ones(n_out, np.float32), np.zeros(n_out, np.float32))

    def weight(self, directory: Path) -> Floats:
        weight = self.layer.values(directory) * self.rows[:, np.newaxis]
        return np.divide(weight, self.columns, dtype=np.float32)

    def bias(self, bias: Floats, directory: Path) -> Floats:
        moved = bias + self.given @ self.layer.values(directory) - self.shift
        return np.divide(moved, self.columns, dtype=np.float32)

    @property
    def moves_bias(self) -> bool:
        return bool(self.given.any() or self.shift.any() or (self.columns != 1).any())


class _Rewriter:
    """Puts balances into a graph; each changed constant gets a name of its own, for others may share the old one."""

    def __init__(self, model: onnx.ModelProto, directory: Path) -> None:
        self._model = model
        self._directory = directory
        self._graph = Graph(model.graph)
        self._nodes = {node.name: node for node in model.graph.node}
        self._infos = {value.name: value for value in (*model.graph.value_info, *model.graph.input)}
        self._changes: dict[str, _Change] = {}
        self._after: dict[str, onnx.NodeProto] = {}
        """New nodes, by the value that each reads."""

    def write(self, balances: Sequence[tuple[Site, Balance]], path: Path) -> None:
        for site, balance in balances:
            self._spread(site, balance)
        for name, change in self._changes.items():
            if change.moves_bias:
                self._set_bias(change)
            self._nodes[name].input[1] = name + _SMOOTH
        self._place()
        n_bytes = sum(4 * math.prod(change.layer.weight.dims) for change in self._changes.values())
        write_tensors(self._model, n_bytes, self._weights(), self._directory, path)

    def _weights(self) -> Named:
        for name, change in self._changes.items():
            yield name + _SMOOTH, change.weight(self._directory)

    def _spread(self, site: Site, balance: Balance) -> None:
        for layer in site.layers:
            change = self._change(layer)
            change.rows, change.given = balance.scale, balance.shift
        if isinstance(site.maker, Layer):
            change = self._change(site.maker)
            change.columns, change.shift = balance.scale, balance.shift
        elif site.maker is not None:
            node = site.maker
            node.input[1] = self._keep(f"{node.name}/scale", self._read(node.input[1]) / balance.scale)
            node.input[2] = self._keep(f"{node.name}/bias", (self._read(node.input[2]) - balance.shift) / balance.scale)
        else:
            self._multiply(site, balance)

    def _change(self, layer: Layer) -> _Change:
        return self._changes.setdefault(layer.name, _Change.none(layer))

    def _multiply(self, site: Site, balance: Balance) -> None:
        smoothed = site.source + _SMOOTH
        by = self._keep(f"{smoothed}/by", np.reciprocal(balance.scale))
        for layer in site.layers:
            self._nodes[layer.name].input[0] = smoothed
        self._after[site.source] = helper.make_node("Mul", [site.source, by], [smoothed], smoothed)
        info = onnx.ValueInfoProto()
        info.CopyFrom(self._infos[site.source])
        info.name = smoothed
        self._model.graph.value_info.append(info)

    def _set_bias(self, change: _Change) -> None:
        """The vector that is added behind the layer, or a new one behind one that has none."""
        name = change.layer.name
        product = self._nodes[name]
        found = bias_of(self._graph.users(product.output[0]), product.output[0], self._vectors(change.layer))
        before = np.zeros(change.layer.weight.dims[1], np.float32) if found is None else self._read(found[1])
        bias = self._keep(f"{name}/bias", change.bias(before, self._directory))
        if found is not None:
            add, old = found
            add.input[list(add.input).index(old)] = bias
            return
        output = product.output[0]
        product.output[0] = f"{output}/product"
        self._after[product.output[0]] = helper.make_node("Add", [product.output[0], bias], [output], f"{name}/add")

    def _vectors(self, layer: Layer) -> set[str]:
        return {t.name for t in self._model.graph.initializer if tuple(t.dims) == (layer.weight.dims[1],)}

    def _read(self, name: str) -> Floats:
        tensor = self._graph.constant(name)
        assert tensor is not None
        return numpy_helper.to_array(tensor, str(self._directory))

    def _keep(self, name: str, values: Floats) -> str:
        self._model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def _place(self) -> None:
        """Put each new node behind the one whose value it reads."""
        nodes = [self._after[value.name] for value in self._model.graph.input if value.name in self._after]
        for node in self._model.graph.node:
            nodes += [node, *(self._after[name] for name in node.output if name in self._after)]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self._model.graph.node[:]
        self._model.graph.node.extend(copies)
