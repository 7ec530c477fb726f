"""POST /v1/audio/transcriptions and /translations: a file and fields -> what was said, whole or as it is decoded."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ....models.errors import InputError
from ....models.prompt import PromptInfo, ResolvedPrompt, read_keywords
from ...engine import Engine
from ...events import AnswerEvent, Final, Piece, TimedWord
from ...llm.sampling import Generation
from ...output.subtitles import TimedText, format_captions
from ...scheduler import EngineStream
from ..clips import ClipEnded, answer_clip
from ..errors import invalid, missing, unsupported
from ..jobs import StreamedAnswer, all_in_thread, in_thread, while_connected
from ..languages import transcription_task
from ..service import Service, service_of
from .deltas import Deltas
from .event_stream import data, from_first
from .forms import FormFields, Upload, read_form
from .models import check_model

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
LANGUAGES = {"en": "english", "de": "german", "zh": "chinese", "ja": "japanese"}
"""ISO 639-1 -> as verbose_json names them."""
IGNORED = "auricle-ignored"
"""A header of the answer: fields that this bundle cannot follow."""
SEGMENTS = "auricle.segments"
"""?auricle=auricle.segments: each segment's times and text too, in a stream."""
LISTED_WORDS = 4  # in an entry of a prompt that is a list


@dataclass(frozen=True)
class Asked:
    """What a request wants of its file."""

    task: str  # "transcribe" or "translate"
    prompt: ResolvedPrompt
    generation: Generation
    language: str  # of the answer, as ISO 639-1
    format: str  # one of FORMATS
    keywords: tuple[str, ...] = ()
    stream: bool = False
    segments: bool = False  # tell of each when it is complete
    ignored: tuple[str, ...] = ()  # fields

    @property
    def headers(self) -> dict[str, str]:
        """Of every answer."""
        return {IGNORED: ", ".join(self.ignored)} if self.ignored else {}


@dataclass(frozen=True)
class ClipTranscript:
    """A clip's answers."""

    finals: tuple[Final, ...]
    seconds: float
    """How long the clip is."""
    n_prompt_tokens: int
    """Of text, for each segment."""

    @property
    def text(self) -> str:
        """All segments'."""
        return " ".join(final.text for final in self.finals if final.text)

    @property
    def usage(self) -> dict[str, Any]:
        """In tokens."""
        audio = sum(final.timings.n_audio_tokens for final in self.finals)
        text = self.n_prompt_tokens * len(self.finals)
        output = sum(len(final.token_ids) for final in self.finals)
        return {
            "type": "tokens",
            "input_tokens": audio + text,
            "output_tokens": output,
            "total_tokens": audio + text + output,
            "input_token_details": {"audio_tokens": audio, "text_tokens": text},
        }


async def transcribe(request: Request) -> Response:
    """What was said, in the language in which it was said."""
    return await _answer(request, _transcription)


async def translate(request: Request) -> Response:
    """What was said, in English, where the bundle has a task for that."""
    return await _answer(request, _translation)


async def _answer(request: Request, read: Callable[[Engine, FormFields], Asked]) -> Response:
    service = service_of(request)
    form, upload = await read_form(request)
    if (name := form.text("model")) is None:
        raise missing("model")
    check_model(service, name)
    asked = replace(read(service.engine, form), segments=SEGMENTS in request.query_params.getlist("auricle"))
    stream = service.stream()
    stream.keywords = asked.keywords
    work = _work(service, stream, upload, asked)
    if asked.stream:
        events = _events(service, stream, work, asked)
        answer: Response = StreamedAnswer(await while_connected(request, from_first(events)), stream)
    else:
        answer = _response(_transcript(service, await all_in_thread(request, service, stream, work), asked), asked)
    answer.headers.update(asked.headers)
    return answer


def _transcription(engine: Engine, form: FormFields) -> Asked:
    """Raises ApiError, InputError."""
    languages = [each for name in ("language", "languages") for each in form.texts(name)]
    language, prompt = transcription_task(engine.prompt, languages)
    keywords, ignored = listed_keywords(engine.prompt, form)
    for name in ("known_speaker_names", "known_speaker_references"):
        if form.texts(name):
            raise unsupported("this bundle does not tell speakers apart: leave them out", name)
    if form.texts("include"):
        raise unsupported("probabilities of tokens are not given here: leave include out", "include")
    if form.text("chunking_strategy") not in (None, "auto", "server_vad"):
        raise invalid("chunking_strategy must be auto or server_vad", "chunking_strategy")
    asked = Asked("transcribe", prompt, _generation(engine, form), language, _format(form), keywords, ignored=ignored)
    granularities = form.texts("timestamp_granularities")
    if granularities and asked.format != "verbose_json":
        raise invalid("timestamp_granularities need response_format=verbose_json", "timestamp_granularities")
    if any(each not in ("segment", "word") for each in granularities):
        raise invalid("timestamp_granularities are segment and word", "timestamp_granularities")
    if "word" in granularities:
        if not engine.times_words:
            raise unsupported("this bundle has no times of words: ask for segment", "timestamp_granularities")
        asked = replace(asked, generation=replace(asked.generation, words=True))
    stream = form.flag("stream")
    if stream and asked.format not in ("json", "text"):
        raise unsupported(f"{asked.format} cannot be streamed: leave stream out, or ask for json", "stream")
    return replace(asked, stream=stream)


def _translation(engine: Engine, form: FormFields) -> Asked:
    """Raises ApiError, InputError."""
    tasks = engine.prompt.tasks
    name = next((name for name in tasks if name.startswith("translation") and name.endswith("2en")), None)
    if name is None:
        raise unsupported("this bundle has no task that translates into English", "model")
    keywords, ignored = listed_keywords(engine.prompt, form)
    generation = _generation(engine, form)
    return Asked(
        "translate", engine.prompt.prompt_for(name), generation, "en", _format(form), keywords, ignored=ignored
    )


def listed_keywords(info: PromptInfo, form: FormFields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words to listen for, and the fields that cannot be followed. Raises ApiError.

    A prompt that lists words is taken as keywords, the first that have room. Of running text these models make nothing:
    no bundle was trained to be told what was said before.
    """
    try:
        words = read_keywords(form.texts("keywords"))
    except InputError as error:
        raise invalid(str(error), "keywords") from None
    if len(words) > info.max_keywords:
        raise invalid(f"{len(words)} keywords were given, at most {info.max_keywords} are read", "keywords")
    prompt = form.text("prompt")
    if prompt is None:
        return words, ()
    try:
        listed = read_keywords([prompt])
    except InputError:
        listed = ()
    running = any(len(word.split()) > LISTED_WORDS or word[-1] in ".!?" for word in listed)
    if running or not listed or not info.max_keywords:
        return words, ("prompt",)
    return read_keywords([*words, *listed])[: info.max_keywords], ()


def _generation(engine: Engine, form: FormFields) -> Generation:
    temperature = form.number("temperature", 0.0, 0.0, 1.0)
    return replace(engine.defaults, temperature=temperature, beams=1 if temperature else engine.defaults.beams)


def _format(form: FormFields) -> str:
    name = form.text("response_format") or "json"
    if name == "diarized_json":
        raise unsupported("this bundle does not tell speakers apart: ask for verbose_json", "response_format")
    if name not in FORMATS:
        raise unsupported(f"response_format '{name}' is not one of {', '.join(FORMATS)}", "response_format")
    return name


Heard = AnswerEvent | ClipEnded


def _work(service: Service, stream: EngineStream, upload: Upload, asked: Asked) -> Callable[[], Iterator[Heard]]:
    def work() -> Iterator[Heard]:
        try:
            yield from answer_clip(service, stream, upload.path, asked.prompt, asked.generation)
        finally:
            upload.close()

    return work


def _transcript(service: Service, events: list[Heard], asked: Asked) -> ClipTranscript:
    finals = tuple(event for event in events if isinstance(event, Final))
    seconds = next(event.seconds for event in events if isinstance(event, ClipEnded))
    around = service.engine.llm.prompts.around(asked.prompt, asked.keywords)
    return ClipTranscript(finals, seconds, sum(map(len, around)))


async def _events(
    service: Service, stream: EngineStream, work: Callable[[], Iterator[Heard]], asked: Asked
) -> AsyncGenerator[bytes]:
    """Deltas that only grow, and the whole at the end."""
    events: list[Heard] = []
    deltas = Deltas()
    async with aclosing(in_thread(service, stream, work)) as heard:
        async for event in heard:
            if isinstance(event, Piece):
                if text := deltas.add(event.text):
                    yield data({"type": "transcript.text.delta", "delta": text})
                continue
            events.append(event)
            if isinstance(event, Final):
                deltas.end_segment()
                if asked.segments:
                    times = {"start": round(event.start_s, 3), "end": round(event.end_s, 3)}
                    yield data({"type": SEGMENTS.removesuffix("s"), **times, "text": event.text})
    transcript = _transcript(service, events, asked)
    yield data({"type": "transcript.text.done", "text": transcript.text, "usage": transcript.usage})


def _response(transcript: ClipTranscript, asked: Asked) -> Response:
    if asked.format == "text":
        return PlainTextResponse(transcript.text + "\n")
    if asked.format in ("srt", "vtt"):
        rows = [TimedText(final.start_s, final.end_s, final.text) for final in transcript.finals if final.text]
        kind = "text/vtt" if asked.format == "vtt" else "text/plain"
        return PlainTextResponse(format_captions(rows, asked.format), media_type=kind)
    if asked.format == "verbose_json":
        return JSONResponse(_verbose(transcript, asked))
    usage = {"usage": transcript.usage} if asked.task == "transcribe" else {}
    return JSONResponse({"text": transcript.text, **usage})


def _verbose(transcript: ClipTranscript, asked: Asked) -> dict[str, Any]:
    words = [word for final in transcript.finals for word in final.words if isinstance(word, TimedWord)]
    segments = [_segment(number, final, asked) for number, final in enumerate(transcript.finals) if final.text]
    return {
        "task": asked.task,
        "language": LANGUAGES.get(asked.language, asked.language),
        "duration": round(transcript.seconds, 3),
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": round(transcript.seconds, 3)},
        "segments": segments,
        **({"words": [_word(word) for word in words]} if asked.generation.words else {}),
    }


def _word(word: TimedWord) -> dict[str, Any]:
    return {"word": word.text, "start": word.start_s, "end": word.end_s}


def _segment(number: int, final: Final, asked: Asked) -> dict[str, Any]:
    """All ten fields are required by clients' types; no_speech_prob is not known here, and 0."""
    encoded = final.text.encode()
    return {
        "id": number,
        "seek": round(final.start_s * 100),
        "start": round(final.start_s, 3),
        "end": round(final.end_s, 3),
        "text": final.text,
        "tokens": list(final.token_ids),
        "temperature": asked.generation.temperature,
        "avg_logprob": round(final.avg_logprob or 0.0, 4),
        "compression_ratio": round(len(encoded) / len(zlib.compress(encoded)), 3),
        "no_speech_prob": 0.0,
    }
