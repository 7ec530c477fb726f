"""`auricle-bench quality`: bundles in, how good and how heavy each is out, and what its quantization changed.

Every bundle answers the same clips in a process of its own, one after the other. With a reference, the same model at a
higher precision, each is also made to say the reference's own answers, token by token (bench/quality/divergence.py). So
is one bundle with each of several types of its key-value cache; the reference is the same bundle with a cache of f32.

The times are sums of the runtime's own stage timings, each of which ends with its result in host memory: encoders is
waveform to audio tokens, TTFT waveform to first token, TPOT the decoding of an answer by its tokens.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

from ...models.bundle import Manifest, shipped_bundle
from ...models.corpus import examples
from ...models.errors import InputError
from ...models.llm import GPTQ_TYPES
from ...models.prompt import PromptInfo, nonempty
from ...runtime.bundle import Bundle, open_bundle
from ...runtime.llm.context_size import usual_context_size
from ...runtime.llm.options import LlmOptions
from ..datasets import Item, Progress, demo_items, quiet, table_items
from ..machine.gpu import gpu_name
from ..result import Measure, Record, make_record, subject
from ..word_errors import (
    WordErrors,
    bootstrap_interval,
    differences,
    normalized,
    percentages,
    token_f1,
    total,
    word_errors,
)
from .divergence import Distance
from .table import ERROR
from .table import lines as lines
from .worker import Findings, Job, Reply, measure_apart

Better = Literal["lower", "higher", "neither"]
EXACT_KV = "f32"


@dataclass(frozen=True)
class QualityOptions:
    """What is asked. Raises InputError for values that make no sense."""

    reference: Path | None = None
    """The same model, more precise: what the others are held against."""
    data: Path | None = None
    """A table of recordings; None: the demo's held-out clips."""
    task: str | None = None
    """Where a line of the table names none; None: asr."""
    clips: int | None = None
    """None: the whole table, or clips.N_DEMO sentences."""
    seed: int = 1
    """Which clips are drawn, and the bootstrap's own."""
    kv_types: tuple[str, ...] = ()
    """Of one bundle's cache, each a row of its own behind EXACT_KV's."""

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise InputError(f"{self.clips} clips are nothing to measure: give --clips at least 1")
        if self.task is not None and self.data is None:
            raise InputError("the demo's clips come with their own tasks: give --task together with --data")
        if self.task is not None:
            nonempty(self.task)
        for kv_type in self.kv_types:
            LlmOptions(kv_type=kv_type)
        if self.kv_types and self.reference:
            raise InputError(f"--kv-types are held against a cache of {EXACT_KV}: leave --reference out")


def run(arguments: argparse.Namespace, progress: Progress = quiet) -> Record:
    """The command."""
    a = arguments
    kv_types = tuple(a.kv_types.split(",")) if a.kv_types else ()
    options = QualityOptions(a.reference, a.data, a.task, a.clips, a.seed, kv_types)
    return measure(arguments.bundles or [shipped_bundle()], options, progress)


def measure(bundles: Sequence[Path], options: QualityOptions, progress: Progress = quiet) -> Record:
    """A group of measures per bundle, or per type of one's cache, the reference first. Raises InputError, RunError."""
    opened = open_all(bundles, options.reference)
    names = labels(opened)
    kv_types = [LlmOptions().kv_type] * len(opened)
    if options.kv_types:
        opened, kv_types = _caches(opened, options.kv_types)
        names = [f"cache {kv_type}" for kv_type in kv_types]
    comparing = bool(options.reference or options.kv_types)
    with tempfile.TemporaryDirectory(prefix="auricle-quality-") as place:
        folder = Path(place)
        items = _items(options, opened[0].manifest.prompt, folder, progress)
        measures: list[Measure] = []
        notes = _notes(items, options)
        on_gpu = False
        exact: Sequence[WordErrors] = ()  # the reference's
        for index, (name, bundle, kv_type) in enumerate(zip(names, opened, kv_types, strict=True)):
            compared = str(folder) if comparing else None
            if index and bundle.manifest.prompt != opened[index - 1].manifest.prompt:  # another family asks otherwise
                items = _items(options, bundle.manifest.prompt, folder, progress)
            job = Job(str(bundle.directory), tuple(items), compared, comparing and index == 0, options.seed, kv_type)
            found = measure_apart(job, folder, _named(name, progress))
            cache = kv_type if options.kv_types else None
            measures += _measures(name, bundle.manifest, items, found, options.seed, cache)
            errors = _word_errors(items, found.replies)
            exact = exact if index else errors
            if comparing and index and errors:
                measures += [Measure(name, *score) for score in _paired(errors, exact, options.seed)]
            notes += _notes_on(name, found, first=index == 0)
            on_gpu = on_gpu or found.on_gpu
    settings = {
        "data": str(options.data) if options.data else "demo, held-out sentences and sounds",
        "clips": str(len(items)),
        **({"task": options.task or "asr"} if options.data else {}),
        "seed": str(options.seed),
        **({"reference": names[0]} if comparing else {}),
        **({"kv types": ", ".join(kv_types)} if options.kv_types else {}),
    }
    return make_record(
        "quality",
        [subject(bundle.manifest) for bundle in (opened[:1] if options.kv_types else opened)],
        settings,
        measures,
        _other_sources(opened, names) + notes,
        gpu_name() if on_gpu else None,
    )


def labels(bundles: Sequence[Bundle]) -> list[str]:
    """What tells the bundles apart: their names, else their quantizations, else both, else where they lie."""
    manifests = [bundle.manifest for bundle in bundles]
    kinds = [f"{each.quantization.encoders}/{_llm(each)}" for each in manifests]
    named = [each.name for each in manifests]
    both = [f"{name} {kind}" for name, kind in zip(named, kinds, strict=True)]
    for candidates in (named, kinds, both):
        if len(set(candidates)) == len(bundles):
            return candidates
    return [str(bundle.directory) for bundle in bundles]


def _llm(manifest: Manifest) -> str:
    """As its exporter was asked for it: the same type of file may be rounded in several ways."""
    asked, kind = manifest.provenance.options, manifest.quantization.llm
    if GPTQ_TYPES.get(asked.get("llm", "")) == kind:
        return asked["llm"]
    return kind if asked.get("imatrix", "None") == "None" else f"{kind} imatrix"


def open_all(bundles: Sequence[Path], reference: Path | None) -> list[Bundle]:
    """The reference first, each directory once. Raises InputError for a reference that is another model."""
    wanted = [*([reference] if reference else []), *bundles]
    opened = [open_bundle(path) for path in {path.resolve(): path for path in wanted}.values()]
    if reference:
        first = opened[0].manifest
        for bundle in opened[1:]:
            other = bundle.manifest
            if (other.spec, other.prompt) != (first.spec, first.prompt):
                raise InputError(
                    f"{bundle.directory} has other sizes or another prompt than the reference {opened[0].directory}:"
                    " give bundles of one model"
                )
    return opened


def _caches(opened: list[Bundle], kv_types: Sequence[str]) -> tuple[list[Bundle], list[str]]:
    """The one bundle with each type, EXACT_KV first. Raises InputError for several bundles."""
    if len(opened) > 1:
        raise InputError(f"--kv-types compares the caches of one bundle, but {len(opened)} were given: give one")
    types = list(dict.fromkeys([EXACT_KV, *kv_types]))
    return opened * len(types), types


def _items(options: QualityOptions, asked: PromptInfo, folder: Path, progress: Progress) -> list[Item]:
    if options.data is None:
        return demo_items(asked, options.clips, options.seed, folder, progress)
    return table_items(options.data, asked, options.task or "asr", options.clips, options.seed)


def _named(name: str, progress: Progress) -> Progress:
    return lambda stage, done, n: progress(f"{name}: {stage}", done, n)


def _measures(
    name: str, manifest: Manifest, items: Sequence[Item], found: Findings, seed: int, cache: str | None = None
) -> list[Measure]:
    """Everything about one bundle, or one type of its cache; what does not apply is left out."""
    answered = [reply for reply in found.replies if reply.fault is None]
    speaking = [reply for reply in answered if reply.n_tokens]

    def one(measure: str, unit: str, better: Better, *samples: float) -> Measure:
        return Measure(name, measure, unit, samples, better)

    if cache:
        n_cells = min(usual_context_size(manifest), manifest.spec.llm.max_positions)
        measures = [one("cache", "MB", "lower", manifest.spec.llm.kv_bytes(n_cells, cache) / 1e6)]
    else:
        measures = [one("size", "GB", "lower", subject(manifest).size_gb)]
        measures.append(one("encoders_size", "MB", "lower", _graph_bytes(manifest) / 1e6))
    if found.peak_bytes:
        measures.append(one("memory", "GB", "lower", found.peak_bytes / 1e9))
    if answered:
        measures += [
            one("encoders", "ms", "lower", *(reply.encoders_ms for reply in answered)),
            one("ttft", "ms", "lower", *(reply.ttft_ms for reply in answered)),
            one("rtf", "", "lower", *(reply.total_ms / 1e3 / reply.seconds for reply in answered)),
        ]
    if speaking:
        n_tokens = sum(r.n_tokens for r in speaking)
        decode_s = sum(r.decode_ms for r in speaking) / 1e3
        measures += [
            one("tpot", "ms", "lower", *(reply.decode_ms / reply.n_tokens for reply in speaking)),
            one("speed", "tokens/s", "higher", n_tokens / max(1e-9, decode_s)),
        ]
    for score in (*_word_scores(items, found.replies, seed), *_other_scores(items, found.replies)):
        measures.append(one(*score))
    if found.comparison:
        heard_alike = ("audio_", ERROR) if cache else ()  # no cache changes what the encoders say
        rows = [row for row in _differences(found) if not row[0].startswith(heard_alike)]
        measures += [one(kind, unit, better, *s) for kind, unit, better, s in rows]
    return measures


def _graph_bytes(manifest: Manifest) -> int:
    """Of the encoders' files, weights beside them included."""
    names = tuple(graph.file for graph in manifest.graphs.values())
    return sum(entry.size for entry in manifest.files if entry.path.startswith(names))


_Score = tuple[str, str, Better, float]
_Difference = tuple[str, str, Better, tuple[float, ...]]


def _word_scores(items: Sequence[Item], replies: Sequence[Reply], seed: int) -> list[_Score]:
    """Word error with its bootstrap interval, %, and of how many words; of the items that are scored so."""
    errors = _word_errors(items, replies)
    if not errors:
        return []
    rates: list[_Score] = [(name, "%", "lower", value) for name, value in percentages(errors, seed).items()]
    return [*rates, ("words", "", "neither", total(errors).words)]


def _word_errors(items: Sequence[Item], replies: Sequence[Reply]) -> list[WordErrors]:
    answers = zip(items, replies, strict=True)
    return [word_errors(item.reference, reply.text) for item, reply in answers if item.kind == "words"]


def _paired(
    errors: Sequence[WordErrors], exact: Sequence[WordErrors], seed: int
) -> list[tuple[str, str, tuple[float, ...], Better]]:
    """By how many points of word error it is worse than the reference, clip by clip, with the bootstrap interval."""
    more = differences(errors, exact)
    low, high = bootstrap_interval(more, seed)
    values = {"": total(more).rate, "_low": low, "_high": high}
    return [(f"wer_difference{part}", "points", (100 * value,), "lower") for part, value in values.items()]


def _other_scores(items: Sequence[Item], replies: Sequence[Reply]) -> list[_Score]:
    """Shares of sounds named and of exact answers, the mean F1 of captions, %; of the items that are scored so."""
    judges: dict[str, tuple[str, Callable[[str, str], float]]] = {
        "sound": ("sounds", lambda wanted, answer: examples.named_sound(answer) == wanted),
        "caption": ("caption", token_f1),
        "exact": ("exact", lambda wanted, answer: normalized(answer) == normalized(wanted)),
    }
    scores: list[_Score] = []
    for kind, (measure, judge) in judges.items():
        found = [
            float(judge(item.reference, reply.text))
            for item, reply in zip(items, replies, strict=True)
            if item.kind == kind
        ]
        if found:
            scores.append((measure, "%", "higher", 100 * fmean(found)))
    return scores


def _differences(found: Findings) -> list[_Difference]:
    """Against the reference: the language model alone, the whole chain (audio_), the stages."""
    assert found.comparison is not None
    rows: list[_Difference] = []
    distances: dict[str, Distance] = {"": found.comparison.llm, "audio_": found.comparison.chain}
    for prefix, distance in distances.items():
        rows.append((f"{prefix}kl", "nats", "lower", (distance.kl,)))
        rows.append((f"{prefix}kl_p95", "nats", "lower", (distance.kl_p95,)))
        rows.append((f"{prefix}agreement", "%", "higher", (100 * distance.agreement,)))
    for stage, errors in found.comparison.errors.items():
        rows.append((f"{ERROR}{stage}", "%", "lower", tuple(100 * error for error in errors)))
    return rows


def _notes(items: Sequence[Item], options: QualityOptions) -> list[str]:
    """How the scores are made, of those that are."""
    kinds = {item.kind for item in items}
    explanations = {
        "words": "WER: lower case, punctuation dropped, numbers as they are; letters count as words in scripts without"
        " spaces; interval: 95 % bootstrap over clips",
        "sound": "sounds: share of descriptions that name the demo's class",
        "caption": "caption: mean F1 of the words an answer and its reference have in common, no published metric",
        "exact": "exact: share of answers with the reference's very words",
    }
    notes = [sentence for kind, sentence in explanations.items() if kind in kinds]
    return [
        *notes,
        "memory: peak resident of a process that opens the bundle and answers every clip once",
        "one bundle is measured after the other: what else this machine does meanwhile falls on some of them",
    ]


def _notes_on(name: str, found: Findings, first: bool) -> list[str]:
    """What one bundle's run says beside its numbers; faults of the clips and the amount compared once."""
    notes: list[str] = []
    if first:
        notes += [f"{reply.fault}; counted as answered with nothing" for reply in found.replies if reply.fault]
    if first and (comparison := found.comparison):
        notes.append(
            f"KL(reference || this) and agreement: over the {comparison.n_tokens} tokens of {name}'s own greedy answers"
            f" to {comparison.n_segments} segments, said by each"
        )
    if found.peak_bytes is None:
        notes.append(f"{name}: this system does not say how much memory a process used")
    return notes


def _other_sources(bundles: Sequence[Bundle], names: Sequence[str]) -> list[str]:
    """A sentence for each bundle that was not made from the first one's checkpoint."""
    digests = [frozenset(source.sha256 for source in bundle.manifest.provenance.sources) for bundle in bundles]
    return [
        f"{name} was made from other files than {names[0]}: they may be different models"
        for name, digest in zip(names, digests, strict=True)
        if digest != digests[0]
    ]
