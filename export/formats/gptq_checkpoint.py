"""GPTQ checkpoints, as AutoGPTQ and GPTQModel write them, read as if they held float weights.

For a linear X [n_out, n_in] the files hold X.qweight [n_in * bits / 32, n_out], X.qzeros [n_groups, n_out * bits / 32]
(int32), X.scales [n_groups, n_out] and X.g_idx [n_in], the group of each input, which may be left out. Both packed ones
are streams of bits, the lowest first: qweight's down its columns, qzeros' along its rows. 3 bits cross words' borders.

    X.weight[o, i] = scales[g_idx[i], o] * (q[i, o] - zero[g_idx[i], o])

The first format stores zero - 1. A zero of 0 it loses: AutoGPTQ's writer let the -1 overwrite the other fields of its
word, and of what is then stored its readers made 2^bits before release 0.7 and 0 since, while GPTQModel adds 1 to all
fields of a word at once, which carries into the neighbours. It is refused; no other zero overflows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from ...models.errors import CheckpointError
from .checkpoint import Weights, open_weights, read_json, require

CONFIG_FILE = "quantize_config.json"
BITS = (2, 3, 4, 8)
WORD = 32
CHUNK = 32 * WORD  # inputs dequantized at a time
_FORMATS = {"gptq": 1, "gptq_v2": 0}  # what is added to a stored zero
_TENSORS = ("qzeros", "scales", "g_idx")  # of a module, beside its qweight
_READ = ("quant_method", "bits", "group_size", "checkpoint_format", "sym", "desc_act")


@dataclass(frozen=True)
class GptqConfig:
    """How the weights were rounded and packed."""

    bits: int
    group_size: int
    """Inputs that share a scale; -1: all."""
    added: int
    """To a stored zero."""
    symmetric: bool
    """Said to be: then every zero is the middle, 2^(bits - 1)."""
    act_order: bool
    """Said to be: then no group's inputs lie side by side, and g_idx names them."""
    where: str
    """The file that says so."""

    def n_groups(self, n_in: int) -> int:
        """Groups of a linear with so many inputs."""
        return 1 if self.group_size == -1 else -(-n_in // self.group_size)

    def __str__(self) -> str:
        groups = "one group a row" if self.group_size == -1 else f"groups of {self.group_size}"
        return f"{self.bits} bits in {groups}"


def open_base(directory: Path, config: Mapping[str, Any]) -> tuple[Weights, tuple[str, ...]]:
    """The weights of a model directory, dequantized where they are GPTQ's; notes on what that costs.

    config: its config.json. Raises CheckpointError for another quantization, or tensors that do not fit together.
    """
    gptq = read_gptq_config(directory, config)
    if gptq:
        return GptqWeights(directory, gptq), (_note(directory, gptq),)
    weights = open_weights(directory)
    packed = next((name for name in weights.names() if name.endswith(".qweight")), None)
    if packed:
        raise CheckpointError(
            f"{directory} holds {packed}, but no {CONFIG_FILE} says how it was quantized: get that file too, "
            "or give the float model"
        )
    return weights, ()


def read_gptq_config(directory: Path, config: Mapping[str, Any]) -> GptqConfig | None:
    """From quantize_config.json beside the weights, config.json's quantization_config, or both; None: float weights.

    Raises CheckpointError when they contradict each other, or ask for what cannot be read.
    """
    inside: dict[str, Any] = config.get("quantization_config") or {}
    if not isinstance(inside, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - it is from a file
        raise CheckpointError(f"{directory}/config.json: quantization_config is {inside!r}, which says nothing: fix it")
    beside: dict[str, Any] = {}
    if (directory / CONFIG_FILE).is_file():
        beside = {"quant_method": "gptq", **read_json(directory / CONFIG_FILE)}
    if not inside and not beside:
        return None
    for key in _READ:
        if key in inside and key in beside and inside[key] != beside[key]:
            raise CheckpointError(
                f"{directory}: {key} is {beside[key]!r} in {CONFIG_FILE} and {inside[key]!r} in config.json: "
                "they belong to different models"
            )
    return _config({**inside, **beside}, f"{directory}/{CONFIG_FILE if beside else 'config.json'}")


class GptqWeights(Weights):
    """Weights of a GPTQ checkpoint: `get` gives X.weight as float32 [n_out, n_in], other tensors as they are stored.

    float32 holds every product exactly when the scales are float16 or bfloat16, as they are. Opening reads what is
    small (zeros, groups, biases) and checks it: CheckpointError names what is missing or does not fit.
    """

    def __init__(self, source: Path, config: GptqConfig) -> None:
        super().__init__(source)
        self.config = config
        self._modules: dict[str, _Module] = {}  # by the stored name of their qweight
        for name in self.names():
            if name.endswith(".qweight"):
                self._take(name.removesuffix(".qweight"))
        if not self._modules:
            raise CheckpointError(
                f"{config.where} says GPTQ, but {source} holds no packed weights: "
                "if they are float, take out what it says of quantization"
            )
        lost = next((name for name in self.names() if name.rpartition(".")[2] in _TENSORS), None)
        if lost:
            raise CheckpointError(f"{source} holds {lost} without the qweight that it belongs to: download it again")

    def _take(self, name: str) -> None:
        """A module's tensors go, its weight comes."""
        stored = {part: f"{name}.{part}" for part in ("qweight", *_TENSORS) if f"{name}.{part}" in self}
        require(self._stored, [f"{name}.qzeros", f"{name}.scales"], "GPTQ checkpoint", self.source)
        if f"{name}.weight" in self:
            raise CheckpointError(f"{self.source} holds {name} twice, as weight and as qweight: download it again")
        shape = self._sizes(name, "g_idx" in stored)
        self._require_no_bias(f"{name}.bias")
        module = _Module(shape[1], {part: self._stored.pop(given) for part, given in stored.items()})
        for given in stored.values():
            del self._shapes[given]
        path, qweight = module.parts["qweight"]
        self._modules[qweight] = module
        self._stored[f"{name}.weight"] = (path, qweight)
        self._shapes[f"{name}.weight"] = shape
        self._zeros(module)
        self._groups(module)

    def _sizes(self, name: str, grouped: bool) -> tuple[int, int]:
        """(n_out, n_in), when all shapes say so."""
        bits = self.config.bits
        where = f"{self.source}: {name}"
        shapes = {part: self._shapes.get(f"{name}.{part}", ()) for part in ("qweight", *_TENSORS)}
        flat = [f"{part} {list(s)}" for part, s in shapes.items() if part != "g_idx" and len(s) != 2]
        if flat or (grouped and len(shapes["g_idx"]) != 1):
            raise CheckpointError(f"{where} is not packed as GPTQ packs: {', '.join(flat) or 'g_idx'} is no such table")
        rows, n_out = shapes["qweight"]
        n_in = shapes["g_idx"][0] if grouped else rows * WORD // bits
        if rows * WORD != n_in * bits:
            raise CheckpointError(
                f"{where}.qweight has {rows} rows for {n_in} inputs, but {bits} bits take {n_in * bits / WORD:g}: "
                f"{self.config.where} belongs to another checkpoint"
            )
        if n_in % WORD or n_out % WORD:
            raise CheckpointError(f"{where} is {n_out} x {n_in}: GPTQ packs multiples of {WORD} only")
        groups = self.config.n_groups(n_in)
        for part, wanted in (("scales", (groups, n_out)), ("qzeros", (groups, n_out * bits // WORD))):
            if shapes[part] != wanted:
                raise CheckpointError(
                    f"{where}.{part} is {list(shapes[part])}, but {n_in} inputs at {self.config} make {list(wanted)}: "
                    f"{self.config.where} belongs to another checkpoint"
                )
        return n_out, n_in

    def _require_no_bias(self, bias: str) -> None:
        """AutoGPTQ writes biases of zeros for models that have none."""
        if bias in self:
            if self.get(bias).count_nonzero():
                raise CheckpointError(f"{self.source}: {bias} is not zero, and no Vicuna has biases")
            del self._stored[bias], self._shapes[bias]

    def _read(self, path: Path, stored: str) -> torch.Tensor:
        module = self._modules.get(stored)
        if module is None:
            return super()._read(path, stored)
        scales = super()._read(*module.parts["scales"]).float()
        zeros = self._zeros(module).float()
        groups = self._groups(module)
        qweight = self._words(module, "qweight")
        weight = torch.empty((qweight.shape[1], module.n_in))
        for start in range(0, module.n_in, CHUNK):
            some = groups[start : start + CHUNK]
            words = slice(start * self.config.bits // WORD, (start + CHUNK) * self.config.bits // WORD)
            q = unpack(qweight[words], self.config.bits).float()
            weight[:, start : start + CHUNK] = (scales[some] * (q - zeros[some])).T
        return weight

    def _zeros(self, module: _Module) -> torch.Tensor:
        """[n_groups, n_out] uint8, as they are subtracted."""
        config = self.config
        name = module.parts["qzeros"][1]
        stored = unpack(self._words(module, "qzeros").T, config.bits).T
        highest = 2**config.bits - 1
        middle = 2 ** (config.bits - 1)
        if config.added and (stored == highest).any():
            raise CheckpointError(
                f"{self.source}: {name} stores {highest}, a zero point of 0, which the first GPTQ format does not "
                "keep: get the model as checkpoint_format gptq_v2, or in float"
            )
        zeros = stored + config.added
        if config.symmetric and (strange := zeros[zeros != middle]).numel():
            raise CheckpointError(
                f"{self.source}: {name} has the zero point {int(strange[0])}, where sym makes all of them {middle}: "
                f"checkpoint_format (gptq or gptq_v2) or sym in {config.where} is wrong"
            )
        return zeros

    def _groups(self, module: _Module) -> torch.Tensor:
        """[n_in] int64: the group of each input."""
        n_groups = self.config.n_groups(module.n_in)
        if "g_idx" not in module.parts and self.config.act_order and n_groups > 1:
            raise CheckpointError(
                f"{self.config.where} says desc_act, but {module.parts['qweight'][1]} has no g_idx beside it: "
                "download the checkpoint again"
            )
        if "g_idx" not in module.parts:
            return torch.arange(module.n_in) // (self.config.group_size if n_groups > 1 else module.n_in)
        groups = super()._read(*module.parts["g_idx"]).long()
        if int(groups.min()) < 0 or int(groups.max()) >= n_groups:
            raise CheckpointError(
                f"{self.source}: {module.parts['g_idx'][1]} names groups {int(groups.min())} to {int(groups.max())} "
                f"of {n_groups}: the file is damaged, or belongs to another {CONFIG_FILE}"
            )
        return groups

    def _words(self, module: _Module, part: str) -> torch.Tensor:
        words = super()._read(*module.parts[part])
        if words.dtype != torch.int32:
            raise CheckpointError(
                f"{self.source}: {module.parts[part][1]} is {str(words.dtype).removeprefix('torch.')}: "
                "only words of int32 are read"
            )
        return words


@dataclass(frozen=True)
class _Module:
    n_in: int
    parts: dict[str, tuple[Path, str]]  # file and name of qweight, qzeros, scales and, where there is one, g_idx


def unpack(words: torch.Tensor, bits: int) -> torch.Tensor:
    """[n * bits, m] int32 -> [n * 32, m] uint8: down each column a stream of fields, the lowest bits first."""
    unsigned = words.reshape(-1, bits, words.shape[1]).long() & 0xFFFFFFFF
    fields = torch.empty((len(unsigned), WORD, words.shape[1]), dtype=torch.uint8)
    for n in range(WORD):
        word, offset = divmod(n * bits, WORD)
        field = unsigned[:, word] >> offset
        if offset + bits > WORD:
            field |= unsigned[:, word + 1] << (WORD - offset)
        fields[:, n] = field & (2**bits - 1)
    return fields.reshape(-1, words.shape[1])


def _config(config: dict[str, Any], where: str) -> GptqConfig:
    method = config.get("quant_method") or config.get("method")
    remedy = "give the float model"
    if method != "gptq":
        named = f"quantized by {method}" if method else "quantized, and does not say how (bitsandbytes, perhaps)"
        raise CheckpointError(f"{where} says that the weights are {named}: only GPTQ is read, {remedy}")
    layout = str(config.get("checkpoint_format") or config.get("format") or "gptq")
    if config.get("is_marlin_format"):
        layout = "marlin"
    if layout not in _FORMATS:
        raise CheckpointError(
            f"{where} says checkpoint_format {layout}: only {' and '.join(_FORMATS)} are read, {remedy}"
        )
    if config.get("pack_dtype", "int32") != "int32":
        raise CheckpointError(f"{where} says pack_dtype {config['pack_dtype']}: only int32 is read, {remedy}")
    if any(not str(rule).startswith("-:") for rule in cast(dict[str, Any], config.get("dynamic") or {})):
        raise CheckpointError(f"{where} quantizes some layers in another way (dynamic), which is not read: {remedy}")
    bits = config.get("bits")
    group_size = config.get("group_size")
    if not isinstance(bits, int) or bits not in BITS:
        raise CheckpointError(f"{where} says bits {bits!r}: one of {', '.join(map(str, BITS))} is read, else {remedy}")
    if not isinstance(group_size, int) or isinstance(group_size, bool) or (group_size < 1 and group_size != -1):
        raise CheckpointError(f"{where} says group_size {group_size!r}: it should be a number above 0, or -1")
    return GptqConfig(
        bits, group_size, _FORMATS[layout], config.get("sym") is True, config.get("desc_act") is True, where
    )


def _note(directory: Path, config: GptqConfig) -> str:
    return (
        f"{directory.name} was rounded by GPTQ to {config} before --llm rounded it again: the float model makes a "
        "better bundle (on the demo model, q4_k_m from a 4-bit GPTQ base was three times as far from f32 as from the "
        "float base; docs/quantization.md)"
    )
