"""What each `earshot` command does; runtime/__main__.py says which options it has."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.dataclass_json import encode
from ...models.errors import AudioError, BundleError, EarshotError, InputError, RunError
from ...models.tasks import nonempty
from ..bundle import open_bundle, verify_hashes
from ..engine import Answer, Engine
from ..events import AnswerEvent, Final, Piece, SegmentStarted
from ..llm.sampling import Generation
from ..llm.stopping import REMEDIES
from ..output.subtitles import Caption, format_captions, write_captions
from ..output.terminal import clock, keywords_line, waiting
from .assist import assist
from .listen import listen
from .options import check_prompts, engine_options, form_of, keywords_of, open_engine

if TYPE_CHECKING:
    from rich.status import Status


def ask(arguments: Namespace) -> int:
    """One prompt, one clip or those that it names; the words appear as they are decoded."""
    *clips, question = arguments.words or [""]
    if arguments.text_only and clips:
        raise InputError(f"--text-only asks without a clip: leave {clips[0]} out")
    if not arguments.text_only and not clips:
        raise InputError(f"there is no clip to ask {question!r} about: write earshot ask AUDIO PROMPT_OR_TASK")
    if clips and os.path.isfile(question):
        raise InputError(f"the last word, {question}, is a file: write the prompt or the task behind the clips")
    if not arguments.text_only:
        check_prompts(arguments, question)
    elif question.partition(":")[0] in open_bundle(arguments.bundle).manifest.prompt.tasks:
        raise InputError(f"--text-only hears nothing, and {question} is a task about sound: ask in words")
    with open_engine(arguments) as engine:
        use_keywords(arguments, engine)
        generation = generation_of(arguments, engine)
        if arguments.text_only:
            prompt = nonempty(question)
            events: Iterable[AnswerEvent] = engine.stream_text(prompt, generation)
        else:
            prompt = engine.prompt.prompt_for(question)
            events = engine.stream([Path(clip) for clip in clips], prompt, generation, arguments.mix)
        said = _print_json(events, prompt, engine.keywords) if arguments.json else _print_text(events)
    if arguments.timings:
        for final in said.finals:
            print(_timing_line(final), file=sys.stderr)
    half = [final for final in said.finals if name_what_was_cut(final, arguments)]
    if said.stopped is not None:
        raise said.stopped
    return 1 if half else 0


def caption(arguments: Namespace) -> int:
    """Captions of each clip; one that cannot be heard does not stop the others, but counts in the exit status."""
    check_prompts(arguments, arguments.task)
    targets = _caption_targets(arguments)
    status = 0
    with open_engine(arguments) as engine:
        use_keywords(arguments, engine)
        prompt = engine.prompt.prompt_for(arguments.task)
        generation = generation_of(arguments, engine)
        for audio, target in zip(arguments.audio, targets, strict=True):
            with waiting(audio.name) as spinner:
                said = _listen(engine.stream(audio, prompt, generation, arguments.mix), _seconds_heard(spinner, audio))
            if any([name_what_was_cut(final, arguments) for final in said.finals]):
                status = 1
            rows = [Caption(*row[:3], prompt, str(audio), row[3]) for row in said.rows() if row[2]]
            _put_captions(rows, target, arguments.format, audio, whole=said.stopped is None)
            if isinstance(said.stopped, AudioError):
                print(f"earshot: {said.stopped}", file=sys.stderr)
                status = said.stopped.exit_status
            elif said.stopped is not None:
                raise said.stopped
    return status


def demo(arguments: Namespace) -> int:
    """Answers from the clips that are shipped with the demo bundle."""
    started = time.perf_counter()
    with open_engine(arguments) as engine:
        clips = _demo_clips(engine)
        print(f"{engine.bundle.manifest.name} ready in {time.perf_counter() - started:.2f} s\n")
        for clip in clips:
            _show_clip(engine, clip)
    return 0


def _show_clip(engine: Engine, clip: dict[str, Any]) -> None:
    """Prompt, answer and what was expected; where words go with the clip, the answer without them too."""
    path = engine.bundle.path("clips") / clip["file"]
    print(f"{clip['file']}\n  prompt   {clip['prompt']}")
    if keywords := clip.get("keywords", ()):
        engine.keywords = ()
        print(f"  unlisted {engine.ask(path, clip['prompt']).text}\n  keywords {', '.join(keywords)}")
    engine.keywords = tuple(keywords)
    answer = engine.ask(path, clip["prompt"])
    print(f"  answer   {answer.text}\n  expected {clip['expected']}")
    for final in answer.segments:
        print(f"  {_timing_line(final)}")
    print()


def tasks(arguments: Namespace) -> int:
    """The tasks that have a name in a bundle, and their prompts."""
    for name, prompt in open_bundle(arguments.bundle).manifest.prompt.tasks.items():
        print(f"{name + (':WORDS' if '{}' in prompt else ''):<26} {prompt.replace('{}', 'WORDS')}")
    return 0


def verify(arguments: Namespace) -> int:
    """Every byte of a bundle, and with --run every stage's numbers on this machine."""
    bundle = open_bundle(arguments.bundle)
    verify_hashes(bundle, _bar(sum(entry.size for entry in bundle.manifest.files)))
    print(f"{bundle.directory}: {len(bundle.manifest.files)} files, every byte as exported")
    if not arguments.run:
        return 0
    check = bundle.manifest.self_check
    if check is None:
        raise BundleError(f"{bundle.directory} holds no expected values to run against: it is a synthetic bundle")
    from ..self_check import run_self_check

    with Engine(bundle, engine_options(arguments)) as engine:
        results = run_self_check(engine, check)
    for result in results:
        verdict = "ok" if result.passed else "WRONG"
        print(f"{result.stage:<14} error {result.error:.2e}, allowed {result.tolerance:.0e}  {verdict}")
    if wrong := [result.stage for result in results if not result.passed]:
        raise RunError(f"this machine computes {', '.join(wrong)} differently: `earshot doctor` may say why")
    return 0


def chat(arguments: Namespace) -> int:
    """See chatting."""
    from .chat import chat

    return chat(arguments)


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ask": ask,
    "assist": assist,
    "caption": caption,
    "chat": chat,
    "demo": demo,
    "listen": listen,
    "tasks": tasks,
    "verify": verify,
}


def generation_of(arguments: Namespace, engine: Engine) -> Generation:
    """The decoding options. Raises InputError."""
    return Generation(
        max_new_tokens=_or(arguments.max_new_tokens, engine.defaults.max_new_tokens),
        beams=_or(arguments.beams, engine.defaults.beams),
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        repetition_penalty=arguments.repetition_penalty,
        guard=True,
        stop=tuple(arguments.stop),
        max_seconds=arguments.max_seconds,
        gbnf=form_of(arguments),
    )


def use_keywords(arguments: Namespace, engine: Engine) -> None:
    """`--keywords` and `--keywords-file`; words that are too many are named on standard error. Raises InputError."""
    read = keywords_of(arguments)
    if read is not None and (event := read.use(engine)) and event.left_out:
        print(f"earshot: {keywords_line(event)}", file=sys.stderr)


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


@dataclass
class _Said:
    """What was said about a clip until its end, or until something stopped it."""

    finals: list[Final] = field(default_factory=list[Final])
    started: SegmentStarted | None = None
    """The segment that was not finished."""
    words: str = ""
    """What was said about it."""
    stopped: EarshotError | KeyboardInterrupt | None = None

    def rows(self) -> list[tuple[float, float, str, str | None]]:
        """Start, end and text of each segment, the unfinished one last, and what stopped its answer."""
        rows = [(final.start_s, final.end_s, final.text, final.stopped) for final in self.finals]
        unfinished = self.started
        if unfinished is None:
            return rows
        return [*rows, (unfinished.start_s, unfinished.end_s, self.words.strip(), "end")]


def _listen(events: Iterable[AnswerEvent], show: Callable[[AnswerEvent], None]) -> _Said:
    """Shows each event. What was said is kept, whatever ends it."""
    said = _Said()
    try:
        for event in events:
            if isinstance(event, SegmentStarted):
                said.started, said.words = event, ""
            elif isinstance(event, Piece):
                said.words += event.text
            else:
                said.finals.append(event)
                said.started = None
            show(event)
    except (EarshotError, KeyboardInterrupt) as stopped:
        said.stopped = stopped
    return said


def _print_text(events: Iterable[AnswerEvent]) -> _Said:
    """Text as it comes; of a clip in several segments each has a line with its time."""
    span = ""
    spinner = waiting("listening")

    def show(event: AnswerEvent) -> None:
        nonlocal span
        if isinstance(event, SegmentStarted):
            span = "" if event.alone else f"[{clock(event.start_s)}-{clock(event.end_s)}] "
            spinner.start()
            return
        spinner.stop()
        print(span, end=event.text if isinstance(event, Piece) else "\n", flush=True)
        span = ""

    spinner.start()
    try:
        said = _listen(events, show)
    finally:
        spinner.stop()
    if said.started is not None and said.words:
        print(flush=True)
    return said


def with_keywords(answer: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """An answer's JSON, and what was listened for where words were given."""
    return answer | ({"keywords": list(words)} if words else {})


def _print_json(events: Iterable[AnswerEvent], prompt: str, keywords: Sequence[str]) -> _Said:
    """One object, `complete` when nothing stopped it; a clip of which nothing can be heard has none."""
    said = _listen(events, lambda _: None)
    text = "\n".join(text for _, _, text, _ in said.rows() if text)
    if text or not isinstance(said.stopped, EarshotError):
        answer = with_keywords(encode(Answer(text, prompt, tuple(said.finals))), keywords)
        print(json.dumps(answer | {"complete": said.stopped is None}, ensure_ascii=False))
    return said


def _seconds_heard(spinner: Status, audio: Path) -> Callable[[AnswerEvent], None]:
    def show(event: AnswerEvent) -> None:
        if isinstance(event, Final):
            spinner.update(f"{audio.name}: {clock(event.end_s)} heard")

    return show


def _put_captions(rows: list[Caption], target: Path | None, format: str, audio: Path, whole: bool) -> None:
    """To standard output or to a file; half a clip's captions never take the name of a whole one's."""
    if target is None:
        sys.stdout.write(format_captions(rows, format))
    elif whole:
        print(write_captions(target, rows, format, audio=audio))
    elif rows:
        part = write_captions(target.with_stem(target.stem + ".partial"), rows, format, audio=audio)
        print(f"earshot: what was said of {audio} so far is in {part}", file=sys.stderr)


def name_what_was_cut(final: Final, arguments: Namespace) -> bool:
    """On standard error, where an answer's time was over or its JSON is not whole; whether it is not.

    The text itself looks like any other.
    """
    half = arguments.json_schema is not None and final.stopped in REMEDIES
    if half or final.stopped == "time":
        span, n = f"{clock(final.start_s)}-{clock(final.end_s)}", len(final.token_ids)
        tokens = "1 token" if n == 1 else f"{n} tokens"
        what = f"the JSON is not complete after {tokens}" if half else f"cut after {tokens}, when its time was over"
        print(f"earshot: [{span}] {what}: {REMEDIES[final.stopped or 'time']}", file=sys.stderr)
    return half


def _timing_line(final: Final) -> str:
    t = final.timings
    stages = ", ".join(f"{name} {ms:.0f}" for name, ms in t.stages.items())
    return (
        f"[{final.start_s:.1f}-{final.end_s:.1f} s] encoders {t.encoders_ms:.0f} ms ({stages}), "
        f"prefill {t.prefill_ms:.0f} ms, {t.n_new_tokens} tokens {t.decode_ms:.0f} ms; "
        f"first token after {t.ttft_ms:.0f} ms, all {t.total_ms:.0f} ms"
    )


def _caption_targets(arguments: Namespace) -> list[Path | None]:
    if arguments.out is None and len(arguments.audio) > 1 and arguments.format in ("srt", "vtt"):
        raise InputError(
            f"{len(arguments.audio)} clips make {len(arguments.audio)} {arguments.format} files: give --out"
        )
    if arguments.out is None:
        return [None] * len(arguments.audio)
    targets = [arguments.out / f"{audio.stem}.{arguments.format}" for audio in arguments.audio]
    doubled = sorted({t.name for t in targets if targets.count(t) > 1})
    if doubled:
        raise InputError(f"two clips would both be written to {doubled[0]}: caption them into different directories")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{arguments.out} cannot be made ({error.strerror}): choose another --out") from None
    return list(targets)


def _demo_clips(engine: Engine) -> list[dict[str, Any]]:
    path = engine.bundle.path("clips") / "clips.json"
    if not path.is_file():
        raise InputError(f"{engine.bundle.directory} has no clips of its own: use `earshot ask AUDIO PROMPT`")
    return json.loads(path.read_text(encoding="utf-8"))


def _bar(total: int) -> Callable[[int], None]:
    """A percentage on a terminal, nothing elsewhere."""
    done = 0

    def advance(n_bytes: int) -> None:
        nonlocal done
        done += n_bytes
        if sys.stderr.isatty() and total > 100 << 20:
            sys.stderr.write(f"\rread {done / total:4.0%}" + ("\n" if done >= total else ""))

    return advance
