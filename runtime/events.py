"""Events: what the runtime tells while it works, facts with their times, in order. All times are seconds of audio.

A clip: for each segment SegmentStarted, Pieces as they are decoded, then exactly one Final whose text is the Pieces'
joined and stripped (or its sound beginning, where Final.finish_reason is "loop").

Live: for each segment SpeechStarted, any number of Captions, exactly one Final. Segments do not overlap and come in
order; a Caption's stable text begins with that of the Caption before it; nothing about a segment follows its Final.
Between them stand KeywordsRead, AudioDropped, DeviceLost, DeviceFound, DeviceMuted and Lagging; SessionEnded is the
last of all.
For who asks for it SegmentComplete comes before each Final, or in its place.

The assistant: for each segment SpeechStarted, SpeechEnded, any number of Pieces, exactly one Answered. Speech that
interrupts an answer has its SpeechStarted after that Answered. Between them and at the end, the same as live.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..models.audio import Waveform

FinishReason = Literal["eos", "length", "stop", "loop", "time", "unsupported", "speech", "end"]
"""Why an answer ended. "eos": the model ended it; "length": max_new_tokens did; "stop": a stop sequence would have
followed; "loop": it repeated itself and was cut; "time": max_seconds were over; "unsupported": its support is
below what was asked for, however it ended. Of the assistant also "speech":
somebody spoke again; and "end": the session was ended, or the clip not read to its end."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds of wall time one segment spent in each stage."""

    stages: dict[str, float]
    """Each encoder graph with its front end; on a GPU two may work side by side."""
    encoders_ms: float
    """Until the audio tokens were there: what the language model waited for."""
    prefill_ms: float
    """Audio tokens and prompt through the language model, to the first logits."""
    decode_ms: float
    """All new tokens."""
    n_audio_tokens: int
    n_new_tokens: int

    @property
    def ttft_ms(self) -> float:
        """From waveform to first token."""
        return self.encoders_ms + self.prefill_ms

    @property
    def tpot_ms(self) -> float:
        """Per new token."""
        return self.decode_ms / max(1, self.n_new_tokens)

    @property
    def total_ms(self) -> float:
        """The whole segment."""
        return self.ttft_ms + self.decode_ms


@dataclass(frozen=True)
class SegmentStarted:
    """A stretch of the clip is heard now; silent stretches are not."""

    start_s: float
    """Where the segment starts in the clip, seconds."""
    end_s: float
    alone: bool
    """It is the whole clip."""


@dataclass(frozen=True)
class Piece:
    """New text of the segment that is being answered."""

    text: str


@dataclass(frozen=True)
class Word:
    """A word of live text and how much audio had been heard when it first stood where it stands.

    Not an alignment: the word was spoken before `heard_s`, at the earliest one update and one audio token before it.
    """

    text: str
    heard_s: float

    def moved(self, by_s: float) -> Word:
        """As TimedWord.moved."""
        return replace(self, heard_s=self.heard_s + by_s)


@dataclass(frozen=True)
class TimedWord:
    """A word and when it was said, by the bundle's aligner. Times are seconds of audio."""

    text: str
    start_s: float
    end_s: float
    probability: float
    """By the aligner, 0 to 1: whether this word, so spelt, was said there."""

    def moved(self, by_s: float) -> TimedWord:
        """The same word in a clip that holds its own from by_s on."""
        return replace(self, start_s=round(self.start_s + by_s, 3), end_s=round(self.end_s + by_s, 3))


@dataclass(frozen=True)
class Final:
    """One segment's whole answer."""

    start_s: float
    """Where the segment starts in the clip, seconds."""
    end_s: float
    text: str
    token_ids: tuple[int, ...]
    """What the model said, without BOS and EOS."""
    timings: Timings
    prompt: str = ""
    """What the model was asked."""
    finish_reason: FinishReason = "eos"
    """"eos", "length", "stop", "loop", "time" or "unsupported"."""
    words: tuple[TimedWord, ...] | tuple[Word, ...] = ()
    """With an aligner, where it is asked for: when each word was said. Else, live only: when each was first heard."""
    also: tuple[tuple[str, str], ...] = ()
    """Live only: (prompt, answer) of every further question about the same segment."""
    n_revised: int = 0
    """Live only: words that were shown as stable and are another word, or elsewhere, in this text."""
    avg_logprob: float | None = None
    """Mean log-probability of the answer's tokens and its end, nats: how sure the model was. None by beam search."""
    support: float | None = None
    """With an aligner, of a transcription, where it is asked for: how far a small recognizer agrees, 0 to 1."""
    confident: bool = True
    """Whether avg_logprob reaches what the bundle says that understood sound has, if it says so."""

    @property
    def supported(self) -> bool:
        """Whether its support was not below what was asked for, as far as that is known."""
        return self.finish_reason != "unsupported"


@dataclass(frozen=True)
class Decoded:
    """One decoded answer and what it took."""

    text: str
    """Without space around it."""
    token_ids: tuple[int, ...]
    timings: Timings
    finish_reason: FinishReason
    avg_logprob: float | None = None
    """As Final.avg_logprob."""
    support: float | None = None
    """As Final.support."""
    confident: bool = True
    """As Final.confident."""

    def final(self, start_s: float, end_s: float, prompt: str) -> Final:
        """The answer to a prompt about these seconds of a clip."""
        return Final(
            start_s,
            end_s,
            self.text,
            self.token_ids,
            self.timings,
            prompt,
            self.finish_reason,
            avg_logprob=self.avg_logprob,
            support=self.support,
            confident=self.confident,
        )


@dataclass(frozen=True)
class SpeechStarted:
    """Someone speaks: a segment has begun."""

    start_s: float
    """Where the segment begins, a little before the first sound."""


@dataclass(frozen=True)
class Work:
    """What one update took."""

    latency_ms: float
    """From the newest sample read to the new text."""
    encoders_ms: float
    n_audio_tokens: int
    n_kept: int
    """Audio tokens whose KV was kept (`settle_s`)."""
    n_drafted: int
    n_accepted: int
    """Tokens of the last hypothesis that the new one begins with: they cost no step."""
    n_new_tokens: int
    """In the new hypothesis, of all prompts together."""
    n_steps: int
    """Passes through the language model after the prefill."""


@dataclass(frozen=True)
class Caption:
    """What is understood of the segment that is being spoken."""

    start_s: float
    end_s: float
    """Until here it was heard."""
    stable: str
    """Agreed on by consecutive hypotheses: never changed by a later Caption."""
    unstable: str
    """The rest of the newest hypothesis."""
    also: tuple[tuple[str, str], ...]
    """(prompt, answer) of every further question, all unstable."""
    work: Work
    words: tuple[TimedWord, ...] = ()
    """With an aligner that takes less than 15 % of an update here: when each word of the stable text was said."""


@dataclass(frozen=True)
class SpeechEnded:
    """A segment is complete; its answer is worked on."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class SegmentComplete:
    """Live, where it is asked for: a segment and its sound, before it is decoded."""

    start_s: float
    end_s: float
    reason: Literal["pause", "full", "end"]
    """What ended it: silence, its length, or the end of the source."""
    waveform: Waveform


@dataclass(frozen=True)
class Answered:
    """The assistant's answer to one segment, as far as it came."""

    start_s: float
    """Where the segment starts, seconds."""
    end_s: float
    text: str
    token_ids: tuple[int, ...]
    """What the model said, without BOS and EOS; it remembers so much of it."""
    timings: Timings
    prompt: str
    finish_reason: FinishReason
    """As Final.finish_reason, or "speech": somebody spoke again, or "end": the session was ended."""
    avg_logprob: float | None = None
    """As Final.avg_logprob."""
    support: float | None = None
    """As Final.support."""
    intent: Any = None
    """With a JSON schema: the answer's value; None for an answer that is not whole."""
    confident: bool = True
    """Whether avg_logprob and support reach what AssistantOptions ask; if not, nothing was done with the answer."""
    complete: bool = True
    """With a JSON schema: whether the text is JSON that holds it."""
    n_turns: int = 1
    """Turns the model remembers, this one included."""

    @property
    def interrupted(self) -> bool:
        """Somebody spoke before the answer was complete."""
        return self.finish_reason == "speech"


@dataclass(frozen=True)
class Lagging:
    """Updates take longer than the hop: they come every `every_s` seconds of audio now."""

    heard_s: float
    every_s: float


@dataclass(frozen=True)
class KeywordsRead:
    """What is listened for from here on, at the beginning and whenever the list has changed."""

    start_s: float
    words: tuple[str, ...]
    left_out: tuple[str, ...]
    """More than the model reads."""
    problem: str | None
    """Why the list could not be read again: the words are the old ones."""


@dataclass(frozen=True)
class SessionEnded:
    """Where all captured audio went, in seconds; captured = decoded + skipped + dropped."""

    captured_s: float
    decoded_s: float
    skipped_s: float
    dropped_s: float
    speculated_s: float = 0.0
    """Wall time that answers were worked on while the gate still waited for their pause,"""
    wasted_s: float = 0.0
    """and of it what was in vain, for somebody spoke on."""


@dataclass(frozen=True)
class AudioDropped:
    """Sound was lost: nobody read it for too long, or the device overran. The timeline has a gap here."""

    start_s: float
    """Where the gap begins, seconds from the source's first sample."""
    seconds: float
    """How long it is; 0 when the device did not say."""


@dataclass(frozen=True)
class DeviceLost:
    """The microphone is gone; it is looked for until it comes back."""

    start_s: float
    """Where its sound ends, seconds from the source's first sample."""
    name: str


@dataclass(frozen=True)
class DeviceFound:
    """The microphone is back. The timeline has a gap of the seconds lost, which ends here."""

    start_s: float
    """Where its sound goes on, seconds from the source's first sample."""
    name: str
    seconds_lost: float


@dataclass(frozen=True)
class DeviceMuted:
    """The microphone gives nothing but zeros: it is muted, or this program may not hear it. Once, until sound comes."""

    start_s: float
    """Until here, seconds from the source's first sample."""
    name: str
    seconds: float
    """So long before it."""


AnswerEvent = SegmentStarted | Piece | Final
"""What `Engine.stream` yields."""

LiveEvent = (
    SpeechStarted
    | Caption
    | SegmentComplete
    | Final
    | Lagging
    | KeywordsRead
    | AudioDropped
    | DeviceLost
    | DeviceFound
    | DeviceMuted
    | SessionEnded
)
"""What live captions yield."""

AssistantEvent = (
    SpeechStarted
    | SpeechEnded
    | Piece
    | Answered
    | KeywordsRead
    | AudioDropped
    | DeviceLost
    | DeviceFound
    | DeviceMuted
    | SessionEnded
)
"""What the voice assistant yields."""
