"""Stage runner: an opened bundle -> each of its stages with its time, its work and a proof that it was done.

A time is that of a result that lies in host memory, whose shape, numbers and token count are checked. Words do not
matter: with random weights an answer has no end, so neither EOS nor a loop ends one here, and the answer of a live
update is forced to be its draft (Generation.ignore_eos, forced_ids).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...models.audio import MIN_CLIP_SECONDS, SAMPLE_RATE, synthetic_clip
from ...models.errors import InputError, RunError
from ...runtime.engine import Engine, EngineOptions
from ...runtime.llm.sampling import Generation
from ...runtime.llm.speculative import Replies, reply_to_all
from .. import flops
from ..families.base import Floats, hearing, is_front_end
from ..families.registry import family_of
from ..flops import Work
from ..machine.limits import Limits
from ..machine.timing import Times, repeat
from ..result import Measure

HYPOTHESIS = 20
"""Tokens of the draft that a live update is measured with."""
SETTLE_S = 1.0
"""Age from which audio tokens are kept, in a live update that settles."""
LIVE = "live update"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How often, on what. Raises InputError for an impossible value."""

    runs: int = 5
    warmup: int = 1
    seconds: float = 30.0
    """Of audio; a model with a shorter window hears that."""
    n_new_tokens: int = 32
    prompt: str = "asr"
    seed: int = 7
    engine: EngineOptions = field(default_factory=EngineOptions)

    def __post_init__(self) -> None:
        for name, least in (("runs", 1), ("warmup", 0), ("n_new_tokens", 1), ("seconds", MIN_CLIP_SECONDS)):
            if not getattr(self, name) >= least:
                raise InputError(f"{name}={getattr(self, name)} is not possible: it must be at least {least:g}")


@dataclass(frozen=True)
class Bound:
    """What sets the pace: a precision of products (fp32, fp16, int8), for the encoders and for the language model."""

    encoders: str
    prefill: str


@dataclass(frozen=True)
class Stage:
    """What one stage took, and what it had to do."""

    name: str
    times: Times
    work: Work
    tokens: int
    """Frames or tokens that came out; that went in, where the stage reads a question."""
    limit: str
    """A precision of products, or "read"."""
    audio_s: float = 0.0

    def measures(self, machine: Limits) -> list[Measure]:
        """Everything about this stage, against the machine."""
        traffic = self.limit == "read"
        amount = (self.work.bytes if traffic else self.work.flop) / 1e9
        best = machine.read if traffic else machine.product(self.limit)
        rates = tuple(amount / wall for wall in self.times.wall_s)
        found = [
            Measure(self.name, "wall", "s", self.times.wall_s, "lower"),
            Measure(self.name, "cpu", "s", self.times.cpu_s, "lower"),
            Measure(self.name, "rate", "GB/s" if traffic else "GFLOP/s", rates, "higher"),
            Measure(self.name, "share", "%", tuple(100 * rate / best for rate in rates), "higher"),
            Measure(self.name, "flop", "FLOP", (self.work.flop,)),
            Measure(self.name, "bytes", "B", (self.work.bytes,)),
            Measure(self.name, "tokens", "", (float(self.tokens),)),
        ]
        return [*found, Measure(self.name, "audio", "s", (self.audio_s,))] if self.audio_s else found


class StageRuns:
    """Everything that is measured of one engine. `tell` is called with the stage's name after each run."""

    def __init__(self, engine: Engine, options: Options, bound: Bound, tell: Tell) -> None:
        self.engine = engine
        self.options = options
        self.bound = bound
        self.tell = tell
        self.spec = engine.spec
        self.family = family_of(engine.spec)
        self.seconds = min(options.seconds, self.spec.seconds)
        self.waveform = synthetic_clip(options.seed, self.seconds)
        self.prompt = engine.prompt.prompt_for(options.prompt)
        manifest = engine.bundle.manifest
        self.precision = manifest.quantization.encoders
        self.quantization = manifest.quantization.llm
        self.n_prefix, self.n_suffix = map(len, engine.llm.prompts.around(self.prompt))
        self.feeds: dict[str, dict[str, Floats]] = {}
        """Graph -> what it heard, to profile it with."""
        self.audio_tokens: Floats = np.zeros((0, self.spec.llm.hidden), np.float32)

    def stages(self) -> list[Stage]:
        """In the order of the data."""
        return [*self._hearing(), self._prefill(), self._decode()]

    def live_update(self) -> list[Measure]:
        """The language model's part of a live update, in turn: with its last hypothesis as the draft, without, and with
        the draft and all audio tokens kept that are older than SETTLE_S."""
        llm = self.engine.llm
        took = {"draft": list[float](), "no draft": list[float](), "settled": list[float]()}
        n_kept = self.spec.n_settled(len(self.waveform) - round(SETTLE_S * SAMPLE_RATE))

        hypothesis = tuple(n % self.spec.llm.vocab for n in range(100, 100 + HYPOTHESIS))
        # Left alone, a model of random weights would drop its draft at the first near tie.
        forced = Generation(HYPOTHESIS, guard=False, ignore_eos=True, forced_ids=hypothesis)

        def ask(draft: Sequence[int], kept: int = 0) -> Replies:
            found = reply_to_all(llm, self.audio_tokens, [self.prompt], [draft], [HYPOTHESIS], kept, forced)
            require_count("tokens of an answer", len(found.replies[0].ids), HYPOTHESIS)
            require_count("audio tokens kept", found.n_kept, kept)
            return found

        ways = {
            "no draft": lambda: ask(()),
            "draft": lambda: ask(hypothesis),
            "settled": lambda: ask(hypothesis, n_kept),
        }
        reply = [way() for way in ways.values()][1].replies[0]
        for _ in range(self.options.runs):
            for name, way in ways.items():
                took[name] += repeat(way, 1, 0).wall_s
            self.tell(LIVE)
        ratio = tuple(a / b for a, b in zip(took["draft"], took["no draft"], strict=True))
        return [
            *(Measure(LIVE, name, "s", tuple(samples), "lower") for name, samples in took.items()),
            Measure(LIVE, "ratio", "", ratio, "lower"),
            Measure(LIVE, "accepted", "", (float(reply.n_accepted),), "higher"),
            Measure(LIVE, "drafted", "", (float(reply.n_drafted),)),
            Measure(LIVE, "kept", "", (float(n_kept),)),
        ]

    def _repeat(self, name: str, work: Callable[[], object]) -> Times:
        return repeat(work, self.options.runs, self.options.warmup, lambda: self.tell(name))

    def _hearing(self) -> list[Stage]:
        """Each stage alone, then all of them as the engine runs them: on a GPU two encoders side by side."""
        works = self.family.works(self.spec, self.precision, self.seconds)
        stages: list[Stage] = []
        for part in self.family.parts(self.engine, self.waveform):
            self.audio_tokens = part.run()  # at last
            require(part.name, self.audio_tokens, part.shape)
            if part.feeds is not None:
                self.feeds[part.name] = dict(part.feeds)
            times = self._repeat(part.name, part.run)
            work = works[part.name]
            limit = "fp32" if is_front_end(work) else self.bound.encoders
            stages.append(Stage(part.name, times, work, part.n_out, limit, self.seconds))
        require("heard audio tokens", self.engine.encode(self.waveform).audio_tokens, self.audio_tokens.shape)
        times = self._repeat("hear", lambda: self.engine.encode(self.waveform))
        n = len(self.audio_tokens)
        work = hearing(works)
        return [*stages, Stage("hear", times, work, n, self.bound.encoders, self.seconds)]

    def _prefill(self) -> Stage:
        """Audio tokens and the prompt's end behind the kept prefix; before that once, which makes room and keeps it."""
        llm = self.engine.llm
        n_audio = len(self.audio_tokens)
        logits = llm.prefill(self.audio_tokens, self.prompt, self._generation)
        require("logits", logits, (self.spec.llm.vocab,))
        times = self._repeat("prefill", lambda: llm.prefill(self.audio_tokens, self.prompt, self._generation))
        require_count("positions of the question", llm.n_past, self.n_prefix + n_audio + self.n_suffix)
        work = flops.prefill(self.spec.llm, self.quantization, self.n_prefix, n_audio, self.n_suffix)
        return Stage("prefill", times, work, n_audio + self.n_suffix, self.bound.prefill)

    def _decode(self) -> Stage:
        """Greedy, by our own loop: a time for each token of each run."""
        llm = self.engine.llm
        wall = list[float]()
        cpu = list[float]()
        for repetition in range(-self.options.warmup, self.options.runs):
            llm.prefill(self.audio_tokens, self.prompt, self._generation)
            start = llm.n_past
            times = _each(llm.generate(self._generation))
            require_count("new tokens", len(times.wall_s), self.options.n_new_tokens)
            require_count("positions behind the question", llm.n_past - start, self.options.n_new_tokens)
            if repetition >= 0:
                wall += times.wall_s
                cpu += times.cpu_s
            self.tell("decode")
        middle = self.n_prefix + len(self.audio_tokens) + self.n_suffix + self.options.n_new_tokens // 2
        work = flops.decode(self.spec.llm, self.quantization, middle)
        return Stage("decode", Times(tuple(wall), tuple(cpu)), work, 1, "read")

    @property
    def _generation(self) -> Generation:
        """Its first token comes from the prefill, the others from a pass each; no token ends it."""
        return Generation(max_new_tokens=self.options.n_new_tokens + 1, ignore_eos=True)


def require(what: str, found: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    """The proof that a stage worked. Raises RunError."""
    if found.shape != shape:
        raise RunError(f"{what} has shape {list(found.shape)} where {list(shape)} follows from the spec: {_REFUSED}")
    if not np.isfinite(found).all():
        raise RunError(f"{what} holds values that are no numbers: {_REFUSED}")


def require_count(what: str, found: int, expected: int) -> None:
    """The same for tokens. Raises RunError."""
    if found != expected:
        raise RunError(f"{what}: {found} instead of {expected}: {_REFUSED}")


_REFUSED = "what was timed is not the work it should be; look at the bundle with auricle verify --run"


def _each(tokens: Iterator[int]) -> Times:
    """A sample for every token behind the first."""
    next(tokens)
    wall = list[float]()
    cpu = list[float]()
    while True:
        wall_0 = time.perf_counter()
        cpu_0 = time.process_time()
        if next(tokens, None) is None:
            return Times(tuple(wall), tuple(cpu))
        wall.append(time.perf_counter() - wall_0)
        cpu.append(time.process_time() - cpu_0)
