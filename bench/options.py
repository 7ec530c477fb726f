"""Every command of auricle-bench and its options. Nothing heavy is imported: `--help` answers at once."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..models.llm import KV_BYTES, LLM_TYPES
from ..models.precision import DEFAULT_PRECISION, PRECISIONS

MODELS = ("salmonn-13b", "salmonn-7b", "canary-qwen-2.5b", "demo")
DEVICES = ("rpi5", "rpi4", "orange-pi-5", "n100", "jetson-orin-nano")
_LISTED_KV = ",".join(KV_BYTES)
PARTS = ("whisper", "beats", "qformer", "prefill", "decode", "answer", "fastconformer", "transcribe", "recordings")


def count(text: str) -> int:
    """A whole number from 1 on."""
    return _at_least(1, text)


def seed(text: str) -> int:
    """A whole number from 0 on."""
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return int(text)


def counts(text: str) -> list[int]:
    """Whole numbers from 1 on, separated by commas."""
    return [count(each.strip()) for each in text.split(",")]


def positive(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def shares(text: str) -> list[float]:
    """Numbers above 0, separated by commas."""
    return [positive(each.strip()) for each in text.split(",")]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    main = argparse.ArgumentParser(prog="auricle-bench", description="How good, how fast and how large, measured.")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text, allow_abbrev=False)

    _synth(add("synth", "write a full-size bundle of random weights, to measure speed and memory with"))
    _device(add("device", "this machine with the bundles that come along: minutes, one record to share and compare"))
    _stages(add("stages", "time every stage of a bundle against what this machine can do"))
    _batch(add("batch", "segments of recordings decoded together: what that gains, and which words it changes"))
    _live(add("live", "play a recording in real time: latencies, lag and flicker of live captions"))
    _streams(add("streams", "several live streams on one engine: lateness, load, what a further one takes"))
    _serve(add("serve", "the same recording through `listen` and through the server, in turn: what the server adds"))
    _quality(add("quality", "word error, agreement with f32, memory and speed of one or more bundles"))
    _lora_sweep(add("lora-sweep", "word error and answer length against the scale of the LoRA"))
    _keywords(add("keywords", "names recalled with listed words and without, on speech it never heard"))
    _fit(add("fit", "which quantizations fit this memory, and how fast they will be"))
    _peers(add("peers", "Auricle beside other runtimes of the same model, in turn"))
    compare = add("compare", "what changed between two runs; exit status 1 on a regression beyond their noise")
    compare.add_argument("before", type=Path, metavar="BEFORE", help="a file with what a command printed")
    compare.add_argument("after", type=Path, metavar="AFTER")
    _add_report(compare)
    report = add("report", "one HTML page of several runs")
    report.add_argument("files", type=Path, nargs="+", metavar="FILE", help="what a command printed")
    report.add_argument("--out", type=Path, required=True, metavar="DIR")
    demo = add("demo-eval", "the demo model on speech and sounds it never heard")
    demo.add_argument("--f32", type=Path, metavar="DIR", help="the same model at fp32/f32, for what quantizing cost")
    ways = add("demo-live", "live captions of the demo model: what each way of reading costs")
    ways.add_argument("--clips", type=count, default=100, metavar="N", help="how many (default %(default)s)")
    times = add("word-times", "how far a bundle's word times are from those of synthetic speech")
    times.add_argument("--clips", type=count, metavar="N", help="sentences of WordNet; default: the correction's 8")
    times.add_argument("--picture", type=Path, metavar="FILE", help="how many words are how far off, as PNG")
    support = add("support", "how well a bundle's aligner tells what was said from what was not")
    support.add_argument("--clips", type=count, default=100, metavar="N", help="to calibrate, and as many held out")
    support.add_argument("--people", type=Path, metavar="TSV", help="recordings of people: audio path, what is said")
    support.add_argument("--picture", type=Path, metavar="FILE", help="right texts kept against wrong ones, as PNG")
    support.add_argument("--threads", type=count, metavar="N", help="default: one per core")
    for each in (demo, ways, times, support):
        each.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
        each.add_argument("--seed", type=seed, default=1, metavar="N", help="which sentences are drawn")
    return main


def _synth(synth: argparse.ArgumentParser) -> None:
    synth.add_argument("--model", choices=MODELS, required=True)
    synth.add_argument("--llm", choices=tuple(LLM_TYPES), default="q4_k_m", metavar="TYPE", help=", ".join(LLM_TYPES))
    synth.add_argument("--encoders", choices=tuple(PRECISIONS), default=DEFAULT_PRECISION)
    synth.add_argument("--out", type=Path, required=True, metavar="DIR")
    synth.add_argument("--seed", type=seed, default=0, metavar="N", help="of the random weights")


def _device(device: argparse.ArgumentParser) -> None:
    device.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="default: demo and demo-salm")
    device.add_argument("--runs", type=count, default=5, metavar="N", help="of every stage (default %(default)s)")
    quiet = "nobody speaks, to see what waiting costs (default %(default)g)"
    device.add_argument("--silence", type=positive, default=20.0, metavar="S", help=quiet)
    _add_device(device)
    _add_report(device)
    device.epilog = (
        "auricle-bench device | tee mine.txt; auricle-bench compare mine.txt theirs.txt: both side by side, with ratios"
    )


def _stages(stages: argparse.ArgumentParser) -> None:
    _add_bundle(stages)
    stages.add_argument("--runs", type=count, default=5, metavar="N", help="that count (default %(default)s)")
    stages.add_argument("--warmup", type=seed, default=1, metavar="N", help="runs before them")
    stages.add_argument(
        "--seconds", type=float, default=30.0, metavar="S", help="of audio, at most the window (default %(default)g)"
    )
    stages.add_argument("--new-tokens", type=count, default=32, metavar="N", help="decoded (default %(default)s)")
    stages.add_argument("--prompt", default="asr", metavar="PROMPT_OR_TASK")
    _add_device(stages)
    _add_report(stages)


def _batch(batch: argparse.ArgumentParser) -> None:
    _add_bundle(batch)
    batch.add_argument("--recording", type=Path, action="append", required=True, metavar="FILE", help="repeatable")
    sizes = "segments together (default 1,2,4,8)"
    batch.add_argument("--batch", type=counts, dest="sizes", default=[1, 2, 4, 8], metavar="N,...", help=sizes)
    lanes = "or side by side on so many lanes (default: as auricle caption)"
    batch.add_argument("--lanes", type=counts, metavar="N,...", help=lanes)
    batch.add_argument("--task", default="asr", metavar="PROMPT_OR_TASK")
    exactly = "exactly so many from each segment, for random weights; default: until the model ends"
    batch.add_argument("--new-tokens", type=count, metavar="N", help=exactly)
    batch.add_argument("--rounds", type=count, default=3, metavar="N", help="of all sizes (default %(default)s)")
    _add_device(batch)
    _add_report(batch)


def _live(live: argparse.ArgumentParser) -> None:
    _add_bundle(live)
    live.add_argument("--source", type=Path, required=True, metavar="FILE", help="a recording")
    live.add_argument("--words", type=Path, metavar="FILE", help="when its words end: lines of seconds, tab, word")
    live.add_argument("--task", default="asr", metavar="PROMPT_OR_TASK")
    live.add_argument("--hop-ms", type=float, default=500.0, metavar="MS", help="between updates (default %(default)g)")
    live.add_argument("--context", choices=("full", "short"))
    live.add_argument("--settle", type=float, metavar="S", help="keep what was heard longer ago")
    live.add_argument("--no-draft", action="store_true", help="decode every hypothesis anew")
    live.add_argument("--no-speculation", action="store_true", help="compute no final before its pause is over")
    live.add_argument("--pace", choices=("realtime", "fast"), default="realtime")
    _add_device(live)
    _add_report(live)


def _streams(streams: argparse.ArgumentParser) -> None:
    streams.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
    how_many = streams.add_mutually_exclusive_group()
    how_many.add_argument(
        "--streams", type=counts, default=[1, 2, 4, 8, 16], metavar="N,...", help="at once (default 1,2,4,8,16)"
    )
    how_many.add_argument(
        "--load", type=shares, metavar="X,...", help="as many as make such loads, such as 0.5,0.8,1.05"
    )
    lanes = "turns on the engine at a time, each number in turn (default: as auricle serve)"
    streams.add_argument("--lanes", type=counts, metavar="N,...", help=lanes)
    streams.add_argument("--no-admission", dest="admission", action="store_false", help="let in more than fit")
    streams.add_argument("--minutes", type=positive, default=1.0, metavar="M", help="of each (default %(default)g)")
    heard = "what everybody says, in any order; again for more (default: the bundle's clips)"
    streams.add_argument("--recording", type=Path, action="append", default=[], metavar="FILE", help=heard)
    streams.add_argument("--task", default="asr", metavar="PROMPT_OR_TASK")
    streams.add_argument("--hop-ms", type=float, default=500.0, metavar="MS", help="at least (default %(default)g)")
    _add_device(streams)
    _add_report(streams)


def _serve(serve: argparse.ArgumentParser) -> None:
    _add_bundle(serve)
    serve.add_argument("--source", type=Path, required=True, metavar="FILE", help="a recording")
    serve.add_argument("--rounds", type=count, default=3, metavar="N", help="of both (default %(default)s)")
    _add_device(serve)
    _add_report(serve)


def _quality(quality: argparse.ArgumentParser) -> None:
    quality.add_argument("bundles", type=Path, nargs="*", metavar="BUNDLE", help="default: the demo bundle")
    quality.add_argument("--reference", type=Path, metavar="BUNDLE", help="the same model at f32, to compare with")
    quality.add_argument(
        "--kv-types", metavar="TYPE,...", help=f"of one bundle, its key-value cache against one of f32: {_LISTED_KV}"
    )
    quality.add_argument("--data", type=Path, metavar="TSV", help="audio path, reference text [, task]")
    quality.add_argument("--task", metavar="PROMPT_OR_TASK", help="for all clips of --data (default asr)")
    quality.add_argument("--clips", type=count, metavar="N", help="at most so many with speech; sounds come on top")
    quality.add_argument("--seed", type=seed, default=1, metavar="N", help="which clips are drawn")
    _add_report(quality)


def _lora_sweep(sweep: argparse.ArgumentParser) -> None:
    _add_bundle(sweep, "exported with --lora adapter or both")
    sweep.add_argument("--scales", metavar="S,S,...", help="default: 0 to 1.25 times the one it was trained at")
    sweep.add_argument("--clips", type=count, metavar="N", help="default: 50 of the demo's, or all of --data")
    sweep.add_argument("--data", type=Path, metavar="TSV", help="audio path, reference text [, task]")
    sweep.add_argument("--task", default="asr", metavar="PROMPT_OR_TASK", help="for clips of --data without one")
    sweep.add_argument("--seed", type=seed, default=1, metavar="N", help="which clips are drawn")
    _add_device(sweep)
    _add_report(sweep)


def _keywords(keywords: argparse.ArgumentParser) -> None:
    keywords.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="default: demo-salm")
    keywords.add_argument("--data", type=Path, metavar="TSV", help="recordings in the place of demo-salm's names")
    clips = "with a name, and as many without one; default: 200, or all of --data"
    keywords.add_argument("--clips", type=count, metavar="N", help=clips)
    boost = "see auricle ask --help"
    keywords.add_argument("--keyword-boost", type=float, metavar="NATS", help=boost)
    keywords.add_argument("--seed", type=seed, default=1, metavar="N", help="which clips and lists are drawn")
    _add_device(keywords)
    _add_report(keywords)


def _fit(fit: argparse.ArgumentParser) -> None:
    fit.add_argument("--model", choices=MODELS, required=True)
    fit.add_argument("--memory", metavar="SIZE", help="of the device, such as 8GB; needed without --device")
    known = f"a forecast by public figures of one that is not here: {', '.join(DEVICES)}"
    fit.add_argument("--device", choices=DEVICES, metavar="NAME", help=known)
    fit.add_argument("--gpu", metavar="SIZE", help="of its GPU, such as 6GB")
    fit.add_argument("--seconds", type=float, default=30.0, metavar="S", help="of audio (default %(default)g)")
    fit.add_argument("--new-tokens", type=count, default=20, metavar="N", help="of an answer (default %(default)s)")
    fit.add_argument("--n-ctx", type=count, metavar="N", help="KV cells (default: as opened)")
    _add_kv_type(fit)
    fit.add_argument("--threads", type=count, metavar="N")
    fit.add_argument(
        "--stages", type=Path, metavar="FILE", help="what `stages` printed: predict from that, or check it"
    )
    fit.add_argument("--no-probe", dest="probe", action="store_false", help="usual efficiencies, not this machine's")
    _add_report(fit)


def _peers(peers: argparse.ArgumentParser) -> None:
    peers.add_argument("--part", choices=PARTS, default="whisper")
    peers.add_argument("--bundle", type=Path, metavar="DIR", help="ours, for prefill, decode, answer, recordings")
    peers.add_argument("--graph", type=Path, metavar="FILE", help="a whisper.onnx of ours instead of one made here")
    peers.add_argument("--checkpoint", type=Path, metavar="DIR", help="what the bundle was exported from, for answer")
    trained = "Whisper's weights (Hugging Face or faster-whisper) for whisper, default: random ones; for answer, where"
    trained += " --checkpoint has none"
    peers.add_argument("--whisper", type=Path, metavar="DIR", help=trained)
    heard = "what Whisper hears, and the errors are of; default: the exporter's clip"
    peers.add_argument("--recording", type=Path, metavar="FILE", help=heard)
    peers.add_argument(
        "--layers", type=count, default=32, metavar="N", help="of Whisper or the FastConformer (default %(default)s)"
    )
    peers.add_argument("--data", type=Path, metavar="TSV", help="for recordings: audio path, its text")
    beside = "for recordings: a faster-whisper directory to hear them too; repeatable"
    peers.add_argument("--recognizer", type=Path, action="append", default=[], metavar="DIR", help=beside)
    peers.add_argument("--tokens", type=count, default=32, metavar="N", help="decoded (default %(default)s)")
    peers.add_argument("--rounds", type=count, default=3, metavar="N", help="turns of each (default %(default)s)")
    peers.add_argument("--threads", type=count, metavar="N", help="of everyone (default: one per core)")
    layers = "of the language model on a GPU, for prefill and decode; -1: all (default %(default)s)"
    peers.add_argument("--n-gpu-layers", type=int, default=0, metavar="N", help=layers)
    peers.add_argument("--only", metavar="NAME,...", help="these contestants")
    peers.add_argument("--peer-python", metavar="PATH", help="an interpreter that has the others' packages")
    peers.add_argument("--work", type=Path, metavar="DIR", help="keep what is prepared here, for the next time")
    _add_report(peers)


def _add_bundle(command: argparse.ArgumentParser, which: str = "") -> None:
    text = f"{which}; default: the demo bundle" if which else "default: the demo bundle"
    command.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help=text)


def _add_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--provider", default="auto", metavar="NAME", help="auto, cpu, cuda, tensorrt, coreml")
    command.add_argument("--threads", type=count, metavar="N", help="default: one per core")
    command.add_argument("--n-gpu-layers", type=int, default=-1, metavar="N", help="-1: all that fit")
    command.add_argument("--n-ctx", type=count, metavar="N", help="KV cells")
    command.add_argument("--repack", action=argparse.BooleanOptionalAction, help="see auricle ask --help")
    _add_kv_type(command)


def _add_kv_type(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--kv-type", choices=tuple(KV_BYTES), default="f16", help="of the key-value cache; q8_0, q4_0: less memory"
    )


def _add_report(command: argparse.ArgumentParser) -> None:
    command.add_argument("--report", type=Path, metavar="DIR", help="also write an HTML page with plots, and PNGs")
