"""Commands by name: parsed arguments -> each command's own options -> the function that does it -> exit status.

Nothing else reads what argparse found, but for bench's own parser, which has the same device options.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...models.errors import InputError
from ...models.prompt import read_keywords
from ..assistant_options import AssistantOptions
from ..audio.selection import Selection
from ..bundle import open_bundle
from ..engine import EngineOptions
from ..keywords import Keywords
from ..live.captions import LiveOptions
from ..live.gate import GateOptions
from ..llm.grammar.gbnf import read_grammar
from ..llm.grammar.json_schema import JsonSchema, read_schema
from ..llm.options import LlmOptions
from ..llm.sampling import Generation
from ..server.options import ServerOptions, read_key
from ..server.wyoming.options import WyomingOptions
from ..system.ort import OrtOptions
from .ask import AskCommand, ask
from .caption import CaptionCommand, caption
from .chat import ChatCommand, chat
from .demo import demo
from .live.assist import AssistCommand, assist
from .live.listen import ListenCommand, listen
from .live.session import SourceOptions, flag, given_options, print_devices
from .options import ClipOptions, DecodingOptions, ModelOptions
from .serve import ServeCommand, serve
from .verify import VerifyCommand, tasks, verify

GATE = ("threshold", "min_speech_ms", "min_silence_ms", "speech_pad_ms", "max_segment_s")
LIVE = ("hop_ms", "agreement", "context", "settle_s")
SERVER = ("host", "port", "max_sessions", "lanes", "max_upload", "max_seconds")
WYOMING = ("host", "no_key", "vad", "answers", "prompt", "names")
LIMITS = ("max_new_tokens", "max_seconds")


def engine_options(arguments: Namespace) -> EngineOptions:
    """The device options, and `--lora-scale` and `--n-ctx` where the command has them."""
    llm = LlmOptions(
        n_ctx=getattr(arguments, "n_ctx", None),
        n_threads=arguments.threads,
        n_gpu_layers=arguments.n_gpu_layers,
        lora_scale=getattr(arguments, "lora_scale", None),
        prompt_lookup=getattr(arguments, "prompt_lookup", 0),
        keyword_boost=getattr(arguments, "keyword_boost", None),
        kv_type=arguments.kv_type,
        repack=arguments.repack,
    )
    keep = getattr(arguments, "keep_optimized", True)  # the benches have no option for it
    return EngineOptions(OrtOptions(arguments.provider, arguments.threads, keep_optimized=keep), llm)


def _ask(arguments: Namespace) -> int:
    *clips, question = arguments.words or [""]
    command = AskCommand(
        clips=tuple(clips),
        question=question,
        options=_clip_options(arguments),
        text_only=arguments.text_only,
        as_json=arguments.json,
        by_word=arguments.by_word,
        timings=arguments.timings,
    )
    return ask(command)


def caption_command(arguments: Namespace, clips: Sequence[Path]) -> CaptionCommand:
    """Of what add_caption_options found. Raises InputError."""
    return CaptionCommand(
        clips=tuple(clips),
        task=arguments.task,
        options=_clip_options(arguments),
        format=arguments.format,
        out=arguments.out,
        by_word=arguments.by_word,
        batch=arguments.batch,
        lanes=arguments.lanes,
    )


def _caption(arguments: Namespace) -> int:
    return caption(caption_command(arguments, arguments.audio))


def _chat(arguments: Namespace) -> int:
    if not arguments.words:
        raise InputError("there is no clip to chat about: write auricle chat AUDIO")
    clip, *questions = arguments.words
    return chat(ChatCommand(clip, tuple(questions), _clip_options(arguments), arguments.system, arguments.json))


def _demo(arguments: Namespace) -> int:
    return demo(_model_options(arguments))


def _listen(arguments: Namespace) -> int:
    if arguments.list_devices:
        return print_devices(arguments.json)
    gate = given_options(arguments, GATE)
    if arguments.no_vad and (useless := [name for name in gate if name != "max_segment_s"]):
        raise InputError(f"{flag(useless[0])} is for the speech gate, which --no-vad leaves out: give one of them")
    gbnf = _gbnf(arguments)
    schema = _schema(arguments)
    live = LiveOptions(
        prompt=arguments.task,
        also=tuple(arguments.also),
        vad=not arguments.no_vad,
        gate=GateOptions(**gate),
        generation=_live_generation(arguments, gbnf if schema is None else schema.gbnf, "min_support"),
        keywords=_keywords(arguments),
        speculate=not arguments.no_speculation,
        **given_options(arguments, LIVE),
    )
    model = _model_options(arguments)
    return listen(ListenCommand(_source_options(arguments), model, live, arguments.out, arguments.json, schema))


def _assist(arguments: Namespace) -> int:
    if arguments.list_devices:
        return print_devices(arguments.json)
    options = AssistantOptions(
        prompt=arguments.task,
        system=arguments.system,
        remember=not arguments.no_memory,
        json_schema=None if arguments.json_schema is None else read_schema(arguments.json_schema),
        generation=_live_generation(arguments, _gbnf(arguments)),
        keywords=_keywords(arguments),
        speak=arguments.speak,
        min_avg_logprob=arguments.min_avg_logprob,
        min_support=arguments.min_support,
        speculate=not arguments.no_speculation,
        barge_in=not arguments.no_barge_in,
        gate=GateOptions(**given_options(arguments, GATE)),
    )
    return assist(AssistCommand(_source_options(arguments), _model_options(arguments), options, arguments.json))


def _serve(arguments: Namespace) -> int:
    if arguments.key_file is not None and arguments.no_key:
        raise InputError("a key is asked for or it is not: give --key-file or --no-key, not both")
    options = ServerOptions(
        key=None if arguments.key_file is None else read_key(arguments.key_file),
        no_key=arguments.no_key,
        admission=not arguments.no_admission,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        origins=tuple(arguments.origin),
        **given_options(arguments, SERVER),
    )
    wyoming = _wyoming_options(arguments, options)
    source = _served_source(arguments)
    return serve(ServeCommand(_model_options(arguments), options, wyoming, source, arguments.source_prompt or "asr"))


def _served_source(arguments: Namespace) -> SourceOptions | None:
    """`--source`. Raises InputError."""
    if arguments.source is None:
        if arguments.source_device is not None or arguments.source_prompt is not None:
            raise InputError("--source-device and --source-prompt say how, but not what is heard: add --source")
        return None
    if arguments.source in ("microphone", "system"):
        return SourceOptions(source=arguments.source, device=arguments.source_device)
    return SourceOptions(audio=arguments.source, device=arguments.source_device)


def _wyoming_options(arguments: Namespace, server: ServerOptions) -> WyomingOptions | None:
    if arguments.wyoming is None:
        given = [name for name in WYOMING if getattr(arguments, f"wyoming_{name}")]
        if given:
            raise InputError(f"--wyoming-{given[0].replace('_', '-')} says how, but not where: add --wyoming PORT")
        return None
    return WyomingOptions(
        port=arguments.wyoming,
        host=arguments.wyoming_host or server.host,
        no_key=arguments.wyoming_no_key or server.no_key,
        vad=arguments.wyoming_vad,
        answers=arguments.wyoming_answers or "none",
        prompt=arguments.wyoming_prompt,
        names=read_keywords([arguments.wyoming_names or ""]),
    )


def _tasks(arguments: Namespace) -> int:
    return tasks(arguments.bundle)


def _verify(arguments: Namespace) -> int:
    return verify(VerifyCommand(arguments.bundle, arguments.run, engine_options(arguments)))


COMMANDS: dict[str, Callable[[Namespace], int]] = {
    "ask": _ask,
    "assist": _assist,
    "caption": _caption,
    "chat": _chat,
    "demo": _demo,
    "listen": _listen,
    "serve": _serve,
    "tasks": _tasks,
    "verify": _verify,
}
"""Each raises AuricleError. `doctor` is not here: it must run where these cannot be imported."""


def _model_options(arguments: Namespace) -> ModelOptions:
    return ModelOptions(arguments.bundle, engine_options(arguments))


def _clip_options(arguments: Namespace) -> ClipOptions:
    decoding = DecodingOptions(
        max_new_tokens=arguments.max_new_tokens,
        beams=arguments.beams,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        seed=arguments.seed,
        repetition_penalty=arguments.repetition_penalty,
        stop=tuple(arguments.stop),
        max_seconds=arguments.max_seconds,
        gbnf=_gbnf(arguments),
        schema=_schema(arguments),
        min_support=getattr(arguments, "min_support", None),  # chat has none
    )
    selection = Selection(arguments.track, arguments.channel, arguments.mix)
    return ClipOptions(_model_options(arguments), decoding, _keywords(arguments), selection)


def _live_generation(arguments: Namespace, gbnf: str | None, *more: str) -> Generation | None:
    """The decoding options of `listen` and `assist`; None: all are the bundle's. Raises InputError, BundleError."""
    given = Generation(stop=tuple(arguments.stop), gbnf=gbnf, **given_options(arguments, (*LIMITS, *more)))
    if arguments.max_new_tokens is not None:
        return given
    if given == Generation():
        return None
    return replace(given, max_new_tokens=open_bundle(arguments.bundle).manifest.generation.max_new_tokens)


def _source_options(arguments: Namespace) -> SourceOptions:
    return SourceOptions(
        audio=arguments.audio,
        source=getattr(arguments, "source", None),
        device=arguments.device,
        pace=arguments.pace,
        rate=arguments.rate,
        channels=arguments.channels,
        sample_format=arguments.sample_format,
    )


def _keywords(arguments: Namespace) -> Keywords | None:
    """`--keywords` and `--keywords-file`. Raises InputError."""
    if not arguments.keywords and arguments.keywords_file is None:
        return None
    return Keywords(arguments.keywords, arguments.keywords_file)


def _gbnf(arguments: Namespace) -> str | None:
    """`--grammar`. Raises InputError."""
    if arguments.grammar is not None and arguments.json_schema is not None:
        raise InputError("a JSON schema is made into a grammar: give --json-schema or --grammar, not both")
    return None if arguments.grammar is None else read_grammar(arguments.grammar)


def _schema(arguments: Namespace) -> JsonSchema | None:
    """`--json-schema`. Raises InputError."""
    return None if arguments.json_schema is None else JsonSchema(read_schema(arguments.json_schema))
