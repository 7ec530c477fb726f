"""The command line: words -> argparse's result. Imports nothing heavy, so that --help is immediate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...models.llm import KV_BYTES

WITHHELD = "a transcription with less support is withheld, in JSON marked"
USUALLY = "default: one for each core, up to 4, with a small model, else 1"


class _Version(argparse.Action):
    """Prints the installed version, which takes a moment to look up, and ends the program."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"auricle {version('auricle')}")
        except PackageNotFoundError:
            print("auricle, of unknown version: it is not installed, only on the path")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    main = argparse.ArgumentParser(prog="auricle", description="Speech and sound in, words out, offline.")
    main.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    ask = commands.add_parser("ask", help="answer one prompt about a clip", allow_abbrev=False)
    ask.add_argument(
        "words",
        nargs="*",
        metavar="AUDIO ... PROMPT_OR_TASK",
        help="any audio or video file, or - for one from standard input (several, if the prompt names several), "
        "then a question, or a task: asr, "
        "slot_filling:room, ... (`auricle tasks` lists them)",
    )
    ask.add_argument(
        "--text-only", action="store_true", help="no clip: ask the language model as it was before its LoRA"
    )
    _add_words_option(ask, "also when each word was said")
    _add_support_option(ask, WITHHELD)
    ask.add_argument("--json", action="store_true", help="one JSON object instead of text")
    ask.add_argument("--timings", action="store_true", help="how long each stage took")
    _add_model_options(ask)
    caption = commands.add_parser("caption", help="write captions of audio files", allow_abbrev=False)
    caption.add_argument("audio", type=Path, nargs="+", metavar="AUDIO")
    caption.add_argument("--out", type=Path, metavar="DIR", help="a file per clip instead of standard output")
    add_caption_options(caption)
    chat = commands.add_parser("chat", help="several questions about one clip", allow_abbrev=False)
    chat.add_argument(
        "words",
        nargs="*",
        metavar="AUDIO [QUESTION ...]",
        help="a clip no longer than the model's window, then questions; without them lines of standard input",
    )
    chat.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    chat.add_argument("--n-ctx", type=int, metavar="N", help="tokens that are remembered; default: 2048 at most")
    chat.add_argument("--json", action="store_true", help="an answer a line, as JSON")
    _add_model_options(chat)
    demo = commands.add_parser("demo", help="answer from the clips shipped with the demo bundle", allow_abbrev=False)
    _add_bundle_options(demo)
    doctor = commands.add_parser("doctor", help="what this machine has, and what to do about what it lacks")
    doctor.add_argument("--json", action="store_true", help="a JSON list instead of text")
    helped = commands.add_parser("help", help="what a command does and its options")
    helped.add_argument("command", nargs="?", metavar="COMMAND")  # parse_arguments makes it COMMAND --help
    _add_listen(
        commands.add_parser("listen", help="live captions of a microphone, a file or a pipe", allow_abbrev=False)
    )
    _add_assist(commands.add_parser("assist", help="a conversation: answers when you stop talking", allow_abbrev=False))
    _add_serve(
        commands.add_parser(
            "serve", help="a page with captions; OpenAI's API and Wyoming for programs", allow_abbrev=False
        )
    )
    tasks = commands.add_parser("tasks", help="the named tasks and their prompts", allow_abbrev=False)
    tasks.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
    verify = commands.add_parser("verify", help="check every byte of a bundle", allow_abbrev=False)
    verify.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="default: the demo bundle")
    verify.add_argument("--run", action="store_true", help="also repeat the exporter's check on this machine")
    _add_device_options(verify)
    return main


def add_caption_options(command: argparse.ArgumentParser) -> None:
    """What is asked about each clip, and in which format it is written; auricle-cluster's too."""
    command.add_argument("--task", default="asr", metavar="PROMPT_OR_TASK")
    command.add_argument("--format", choices=("txt", "srt", "vtt", "jsonl"), default="txt")
    _add_words_option(command, "vtt: when each word was said, before it; srt: a cue for each; jsonl: words")
    _add_support_option(command, WITHHELD)
    together = "segments of a clip that are decoded together, for large models: faster, rounds otherwise; default: 1"
    command.add_argument("--batch", type=int, default=1, metavar="N", help=together)
    command.add_argument("--lanes", type=int, metavar="N", help=f"segments that are decoded side by side; {USUALLY}")
    _add_model_options(command)


def _add_words_option(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("--words", action="store_true", dest="by_word", help=f"{what}; if the bundle has an aligner")


def _add_support_option(command: argparse.ArgumentParser, what: str) -> None:
    text = f"0 to 1: {what}; if the bundle has an aligner"
    command.add_argument("--min-support", type=float, metavar="S", help=text)


def _add_listen(listen: argparse.ArgumentParser) -> None:
    listen.add_argument(
        "audio", nargs="?", metavar="AUDIO", help="a sound file, or - for raw PCM; default: a microphone"
    )
    listen.add_argument("--task", "--prompt", default="asr", metavar="PROMPT_OR_TASK")
    listen.add_argument(
        "--also", action="append", default=[], metavar="PROMPT_OR_TASK", help="ask this too; repeatable"
    )
    listen.add_argument("--out", type=Path, metavar="FILE", help="write .srt, .vtt, .jsonl or .txt as it happens")
    listen.add_argument("--json", action="store_true", help="every event as a line of JSON")
    listen.add_argument("--max-new-tokens", type=int, metavar="N", help="for each answer")
    _add_support_option(listen, WITHHELD)
    _add_answer_options(listen)
    _add_sound_options(listen, system=True)
    update = listen.add_argument_group("updates")
    update.add_argument("--hop-ms", type=float, metavar="MS", help="audio between two; default: 500")
    update.add_argument("--agreement", type=int, metavar="N", help="updates alike that make text stable; default: 2")
    update.add_argument(
        "--context", choices=("full", "short"), help="short: encode no padding, full: the window; default: as trained"
    )
    update.add_argument(
        "--settle",
        type=float,
        dest="settle_s",
        metavar="S",
        help="updates do not read older seconds again, finals do; default: 1 for a language model from 512 MiB on",
    )
    _add_gate_options(listen)
    listen.add_argument("--no-vad", action="store_true", help="segments of --max-segment-s, for sounds and music")
    _add_bundle_options(listen)


def _add_assist(assist: argparse.ArgumentParser) -> None:
    assist.add_argument(
        "audio", nargs="?", metavar="AUDIO", help="a sound file, or - for raw PCM; default: a microphone"
    )
    assist.add_argument("--task", "--prompt", metavar="PROMPT_OR_TASK", help="default: speech_query, or asr")
    assist.add_argument("--system", metavar="TEXT", help="what the model is told before the conversation")
    assist.add_argument("--json-schema", type=Path, metavar="FILE", help="every answer is JSON of this form")
    assist.add_argument("--speak", metavar="CMD", help="gets each sentence on standard input, e.g. espeak-ng")
    assist.add_argument(
        "--no-barge-in",
        action="store_true",
        help="finish every answer, deaf to what is said while it is spoken: for loudspeakers that the microphone "
        "hears; with headphones leave it out, and speaking stops the answer",
    )
    sure = "mean log-probability below which an answer is not acted on, such as -0.5; default: as the bundle says"
    assist.add_argument("--min-logprob", type=float, dest="min_avg_logprob", metavar="X", help=sure)
    _add_support_option(assist, "a transcription with less is not acted on; default: 0.5")
    assist.add_argument("--no-memory", action="store_true", help="every question stands alone")
    assist.add_argument("--n-ctx", type=int, metavar="N", help="tokens that are remembered; default: 2048 at most")
    assist.add_argument("--json", action="store_true", help="every event as a line of JSON")
    assist.add_argument("--max-new-tokens", type=int, metavar="N", help="for each answer")
    _add_prompt_lookup(assist)
    _add_answer_options(assist, json_schema=False)
    _add_sound_options(assist)
    _add_gate_options(assist)
    _add_bundle_options(assist)


def _add_serve(serve: argparse.ArgumentParser) -> None:
    serve.add_argument("--host", metavar="ADDRESS", help="default: 127.0.0.1, this machine alone")
    serve.add_argument("--port", type=int, metavar="N", help="default: 8642; 0: any that is free")
    serve.add_argument("--key-file", type=Path, metavar="FILE", help="holds the key that clients must show")
    serve.add_argument("--no-key", action="store_true", help="let everybody ask who can reach the address")
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="a certificate, as PEM: https and wss")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, as PEM")
    serve.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="a page of another address may ask; repeatable"
    )
    heard = serve.add_argument_group("captions of what this machine hears, for whoever views them")
    heard.add_argument("--source", metavar="microphone|system|FILE", help="system: what it plays; default: nothing")
    heard.add_argument(
        "--source-device", metavar="NAME|NUMBER", help="a microphone, by a part of its name or its number"
    )
    heard.add_argument("--source-prompt", metavar="PROMPT_OR_TASK", help="asked of it; default: asr")
    limits = serve.add_argument_group("limits")
    limits.add_argument("--max-sessions", type=int, metavar="N", help="worked on at once; default: 64")
    limits.add_argument("--lanes", type=int, metavar="N", help=f"answers that are decoded side by side; {USUALLY}")
    unlimited = "do not refuse live streams for which this machine has no time"
    limits.add_argument("--no-admission", action="store_true", help=unlimited)
    limits.add_argument("--max-upload", type=float, metavar="MB", help="a file; default: 25")
    limits.add_argument("--max-seconds", type=float, metavar="S", help="of sound in a file; default: 14400")
    wyoming = serve.add_argument_group("Home Assistant, by the Wyoming protocol")
    wyoming.add_argument(
        "--wyoming", type=int, metavar="PORT", help="speak it there, 10300 as a rule; default: nowhere"
    )
    wyoming.add_argument("--wyoming-host", metavar="ADDRESS", help="default: as --host")
    wyoming.add_argument("--wyoming-no-key", action="store_true", help="let everybody ask who can reach the address")
    wyoming.add_argument("--wyoming-vad", action="store_true", help="hear where a command ends, in the client's place")
    wyoming.add_argument("--wyoming-answers", choices=("none", "handle", "intent"), help="default: none, transcripts")
    wyoming.add_argument("--wyoming-prompt", metavar="PROMPT_OR_TASK", help="asked about what was said")
    wyoming.add_argument("--wyoming-names", metavar="A,B", help="entities of intents, also listened for")
    _add_prompt_lookup(serve)
    _add_keyword_boost(serve)
    _add_bundle_options(serve)


def _add_sound_options(command: argparse.ArgumentParser, system: bool = False) -> None:
    sound = command.add_argument_group("sound")
    sound.add_argument("--list-devices", action="store_true", help="the microphones there are, * the default one")
    sound.add_argument("--device", metavar="NAME|NUMBER", help="a microphone, by a part of its name or its number")
    sound.add_argument("--pace", choices=("realtime", "fast"), help="of a file or raw PCM; default: realtime")
    sound.add_argument("--rate", type=int, metavar="HZ", help="of raw PCM; default: 16000")
    sound.add_argument("--channels", type=int, metavar="N", help="of raw PCM; default: 1")
    sound.add_argument("--sample-format", choices=("s16le", "f32le"), help="of raw PCM; default: s16le")
    if system:
        played = "system: what this computer plays; default: microphone"
        sound.add_argument("--source", choices=("microphone", "system"), help=played)


def _add_gate_options(command: argparse.ArgumentParser) -> None:
    gate = command.add_argument_group("speech gate")
    gate.add_argument("--threshold", type=float, metavar="P", help="probability that is speech; default: 0.5")
    gate.add_argument("--min-speech-ms", type=float, metavar="MS", help="shorter is no speech; default: 250")
    gate.add_argument("--min-silence-ms", type=float, metavar="MS", help="pause that ends a segment; default: 500")
    gate.add_argument("--speech-pad-ms", type=float, metavar="MS", help="kept on both sides; default: 200")
    gate.add_argument("--max-segment-s", type=float, metavar="S", help="default: 30, or the model's window")
    gate.add_argument("--no-speculation", action="store_true", help="begin no answer before its pause is over")


def _add_model_options(command: argparse.ArgumentParser) -> None:
    _add_bundle_options(command)
    sound = command.add_argument_group("sound")
    sound.add_argument("--track", type=int, metavar="N", help="of several sound tracks, from 1; default: the main one")
    sound.add_argument("--channel", type=int, metavar="N", help="from 1; default: the first")
    sound.add_argument("--mix", action="store_true", help="mean of all channels instead of one")
    words = command.add_argument_group("decoding")
    words.add_argument("--max-new-tokens", type=int, metavar="N")
    words.add_argument("--beams", type=int, metavar="N", help="beam search; default 1: greedy (SALMONN's own is 4)")
    words.add_argument("--temperature", type=float, default=0.0, metavar="T", help="above 0: sample")
    words.add_argument("--top-p", type=float, default=0.9, metavar="P")
    words.add_argument("--seed", type=int, default=0, metavar="N")
    words.add_argument("--repetition-penalty", type=float, default=1.0, metavar="R")
    _add_prompt_lookup(words)
    _add_answer_options(command)


def _add_answer_options(command: argparse.ArgumentParser, json_schema: bool = True) -> None:
    """What every command that asks can say about its answers."""
    answers = command.add_argument_group("answers")
    answers.add_argument(
        "--keywords", action="append", default=[], metavar="WORD,...", help="words that may occur; repeatable"
    )
    answers.add_argument(
        "--keywords-file", type=Path, metavar="FILE", help="the same, one in a line; read again when it changes"
    )
    _add_keyword_boost(answers)
    if json_schema:
        answers.add_argument("--json-schema", type=Path, metavar="FILE", help="every answer is JSON of this form")
    answers.add_argument("--grammar", type=Path, metavar="FILE", help="every answer follows these rules (GBNF)")
    answers.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="an answer ends before it; repeatable"
    )
    answers.add_argument("--max-seconds", type=float, metavar="S", help="then an answer ends as it is, and is marked")
    answers.add_argument("--lora-scale", type=float, metavar="S", help="needs a bundle with an adapter")


def _add_prompt_lookup(command: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    guesses = "guess up to N tokens that an answer may repeat, such as 16: faster where it does, rounds otherwise"
    command.add_argument("--prompt-lookup", type=int, default=0, metavar="N", help=f"{guesses}; default: 0")


def _add_keyword_boost(command: argparse._ActionsContainer) -> None:  # pyright: ignore[reportPrivateUsage]
    boost = "how much likelier their tokens become; 0: they stand in the prompt alone; default: as the model needs"
    command.add_argument("--keyword-boost", type=float, metavar="NATS", help=boost)


def _add_bundle_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--bundle", type=Path, metavar="DIR", help="default: the demo bundle")
    _add_device_options(command)


def _add_device_options(command: argparse.ArgumentParser) -> None:
    device = command.add_argument_group("device")
    device.add_argument("--provider", choices=("auto", "cpu", "cuda", "tensorrt", "coreml"), default="auto")
    device.add_argument(
        "--threads", type=int, metavar="N", help="default: one per core; a language model below 32 MiB takes one"
    )
    device.add_argument(
        "--kv-type", choices=tuple(KV_BYTES), default="f16", help="of the key-value cache; q8_0, q4_0: less memory"
    )
    device.add_argument(
        "--repack",
        action=argparse.BooleanOptionalAction,
        help="weights in an order of llama.cpp's own too: up to twice the memory, faster long answers; by type",
    )
    device.add_argument(
        "--keep-optimized",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep encoders of 64 MiB and more beside the bundle as optimized for this machine: they open at once",
    )
    device.add_argument("--n-gpu-layers", type=int, default=-1, metavar="N", help="default: all, when the build can")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Words that stand behind an option, which argparse leaves over, join those before it; `help X` is `X --help`."""
    commands = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    arguments, rest = commands.parse_known_args(words)
    if rest and (not hasattr(arguments, "words") or any(len(word) > 1 and word.startswith("-") for word in rest)):
        commands.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.words += rest
    return arguments
