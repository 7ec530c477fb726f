"""What each `earshot` command does; runtime/__main__.py says which options it has."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.codec import encode
from ..models.errors import AudioError, BundleError, EarshotError, InputError, RunError
from ..models.salmonn import TASKS, prompt_for
from .bundle import open_bundle, verify_hashes
from .captions import Caption, format_captions, write_captions
from .engine import Engine, EngineOptions, load
from .events import Final, Piece
from .llm import LlmOptions
from .ort import OrtOptions
from .sampling import Generation

if TYPE_CHECKING:
    from rich.status import Status


def ask(arguments: Namespace) -> int:
    """One prompt, one clip; the words appear as they are decoded."""
    prompt = prompt_for(arguments.prompt)
    with _engine(arguments) as engine:
        generation = _generation(arguments, engine)
        if arguments.json:
            answer = engine.ask(arguments.audio, prompt, generation, arguments.mix)
            print(json.dumps(encode(answer), ensure_ascii=False))
            return 0
        finals = _print_stream(engine, arguments, prompt, generation)
    if arguments.timings:
        for final in finals:
            print(_timing_line(final), file=sys.stderr)
    return 0


def caption(arguments: Namespace) -> int:
    """Captions of each clip; one that cannot be heard does not stop the others, but counts in the exit status."""
    prompt = prompt_for(arguments.task)
    targets = _caption_targets(arguments)
    status = 0
    with _engine(arguments) as engine:
        generation = _generation(arguments, engine)
        for audio, target in zip(arguments.audio, targets, strict=True):
            rows, stopped = _hear_all(engine, audio, prompt, generation, arguments.mix)
            if target is None:
                sys.stdout.write(format_captions(rows, arguments.format))
            elif rows or stopped is None:  # an interrupted clip of which nothing was heard leaves an older file alone
                print(write_captions(target, rows, arguments.format, audio=audio))
            if isinstance(stopped, AudioError):
                print(f"earshot: {stopped}", file=sys.stderr)
                status = stopped.exit_status
            elif stopped is not None:
                raise stopped
    return status


def demo(arguments: Namespace) -> int:
    """Answers from the clips that are shipped with the demo bundle."""
    started = time.perf_counter()
    with _engine(arguments) as engine:
        clips = _demo_clips(engine)
        print(f"{engine.bundle.manifest.name} ready in {time.perf_counter() - started:.2f} s\n")
        for clip in clips:
            answer = engine.ask(engine.bundle.path("clips") / clip["file"], clip["prompt"])
            print(
                f"{clip['file']}\n  prompt   {clip['prompt']}\n  answer   {answer.text}\n  expected {clip['expected']}"
            )
            for final in answer.segments:
                print(f"  {_timing_line(final)}")
            print()
    return 0


def tasks(_arguments: Namespace) -> int:
    """The tasks that have a name, and their prompts."""
    for name, prompt in TASKS.items():
        print(f"{name + (':WORDS' if '{}' in prompt else ''):<26} {prompt}")
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
    from .selfcheck import run_self_check

    with Engine(bundle, _engine_options(arguments)) as engine:
        results = run_self_check(engine, check)
    for result in results:
        verdict = "ok" if result.passed else "WRONG"
        print(f"{result.stage:<14} error {result.error:.2e}, allowed {result.tolerance:.0e}  {verdict}")
    if wrong := [result.stage for result in results if not result.passed]:
        raise RunError(f"this machine computes {', '.join(wrong)} differently: `earshot doctor` may say why")
    return 0


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ask": ask,
    "caption": caption,
    "demo": demo,
    "tasks": tasks,
    "verify": verify,
}


def _engine(arguments: Namespace) -> Engine:
    with _waiting("opening the bundle"):
        return load(arguments.bundle, _engine_options(arguments))


def _engine_options(arguments: Namespace) -> EngineOptions:
    llm = LlmOptions(
        n_threads=arguments.threads,
        n_gpu_layers=arguments.n_gpu_layers,
        lora_scale=getattr(arguments, "lora_scale", None),
    )
    return EngineOptions(OrtOptions(provider=arguments.provider, threads=arguments.threads), llm)


def _generation(arguments: Namespace, engine: Engine) -> Generation:
    return Generation(
        max_new_tokens=_or(arguments.max_new_tokens, engine.defaults.max_new_tokens),
        beams=_or(arguments.beams, engine.defaults.beams),
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        repetition_penalty=arguments.repetition_penalty,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _print_stream(engine: Engine, arguments: Namespace, prompt: str, generation: Generation) -> list[Final]:
    """Text as it comes; after the first segment's end, each segment is a line of its own."""
    finals: list[Final] = []
    status = _waiting("listening")
    status.start()
    try:
        for event in engine.stream(arguments.audio, prompt, generation, arguments.mix):
            status.stop()
            if isinstance(event, Piece):
                print(event.text, end="", flush=True)
            else:
                finals.append(event)
                print(flush=True)
    except KeyboardInterrupt:
        print(flush=True)
        raise
    finally:
        status.stop()
    return finals


def _hear_all(
    engine: Engine, audio: Path, prompt: str, generation: Generation, mix: bool
) -> tuple[list[Caption], EarshotError | KeyboardInterrupt | None]:
    """A caption per segment, and what ended it early: what was said until then is kept."""
    rows: list[Caption] = []
    with _waiting(f"{audio.name}") as status:
        try:
            for event in engine.stream(audio, prompt, generation, mix):
                if isinstance(event, Final):
                    status.update(f"{audio.name}: {event.end_s:.0f} s heard")
                    rows += [Caption(event.start_s, event.end_s, event.text, prompt)] if event.text else []
        except (EarshotError, KeyboardInterrupt) as stopped:
            return rows, stopped
    return rows, None


def _waiting(text: str) -> Status:
    """A spinner on a terminal's standard error, nothing elsewhere."""
    from rich.console import Console

    return Console(stderr=True).status(text)


def _timing_line(final: Final) -> str:
    t = final.timings
    return (
        f"[{final.start_s:.1f}-{final.end_s:.1f} s] encoders {t.encoders_ms:.0f} ms, q-former {t.qformer_ms:.0f} ms, "
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
