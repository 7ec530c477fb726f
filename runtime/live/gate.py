"""Speech gate and endpoint detection: samples as they come -> segments, Opened and Closed at an endpoint.

    probability of speech   ......:||||||||||:..::|||||||:.............
                            |<pad>|          |            |<pad>|
    segment                 Opened           (a short     Closed, "pause",
                                              pause)      after min_silence_ms of it

Positions are samples at 16 kHz from the beginning of the stream, gaps included. Segments never overlap; what
lies in none is silence. The outcome does not depend on how the samples are cut into chunks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ...models.audio import SAMPLE_RATE, Waveform
from ...models.errors import InputError
from ..audio.level import is_silent
from ..audio.split import quietest_point
from .silero import FRAME_LENGTH, VadState

HYSTERESIS = 0.15  # speech goes on until its probability is this far below the threshold, as in Silero's own code
CUT_SECONDS = 5.0  # a full segment is cut at the quietest point of its last seconds,
CUT_FRACTION = 0.4  # or of this much of it where it is short
EXPECTED_AFTER_MS = 150.0  # of silence that make a pause worth a guess where it will end the segment
FIXED_BLOCK = SAMPLE_RATE // 10  # what FixedGate looks at to tell digital silence


@dataclass(frozen=True)
class Opened:
    """Speech started."""

    start: int
    """First sample of the segment, the pad included."""


@dataclass(frozen=True)
class Closed:
    """The segment that was open is complete."""

    start: int
    end: int
    """One past its last sample."""
    reason: Literal["pause", "full", "end"]
    """full: it reached max_segment_s and, unless speech paused just there, the next one starts at its end."""


GateEvent = Opened | Closed


@dataclass(frozen=True)
class GateOptions:
    """What counts as a segment of speech. Raises InputError for values that make no sense."""

    threshold: float = 0.5  # probability from which a frame of 32 ms is speech
    min_speech_ms: float = 250.0  # shorter sounds are not speech
    min_silence_ms: float = 500.0  # shorter pauses do not end a segment
    speech_pad_ms: float = 200.0  # kept on both sides: soft beginnings and ends of words
    max_segment_s: float = 30.0  # the longest that is encoded at once

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold {self.threshold} must lie between 0 and 1")
        for name in ("min_speech_ms", "min_silence_ms", "speech_pad_ms"):
            if not 0 <= getattr(self, name) <= 10_000:
                raise InputError(f"{name} {getattr(self, name)} must be 0 to 10000 ms")
        _check_max_segment(self.max_segment_s)


class Vad(Protocol):
    """Says how likely speech is; SileroVad, or a fake."""

    def create_state(self) -> VadState: ...

    def step(self, samples: Waveform, state: VadState) -> tuple[list[float], VadState]: ...


class Gate(Protocol):
    """SpeechGate or FixedGate."""

    @property
    def decided(self) -> int:
        """Every sample before this one lies in a segment that was opened, or is silence for good."""
        ...

    @property
    def expected(self) -> Closed | None:
        """What closes the open segment if the pause goes on; None while nobody pauses, or it cannot be told yet."""
        ...

    @property
    def pausing(self) -> bool:
        """Whether a segment is open and whoever spoke in it does not now."""
        ...

    @property
    def earliest_event(self) -> int:
        """Samples until an event can come at the earliest: fewer than these tell nothing, and may wait for the rest."""
        ...

    def step(self, samples: Waveform) -> list[GateEvent]:
        """The next samples, any number of them; what that decides, in order."""
        ...

    def frames(self, samples: Waveform) -> Iterator[list[GateEvent]]:
        """step(), one frame of 512 samples after the other: what each decides; `decided` and `expected` as of then."""
        ...

    def flush(self) -> list[GateEvent]:
        """The stream pauses or ends here: everything is decided. More samples may follow as after silence."""
        ...

    def gap(self, n: int) -> list[GateEvent]:
        """n samples were lost: flush(), and positions move on by n."""
        ...


class SpeechGate:
    """Segments of speech. One thread at a time."""

    def __init__(self, vad: Vad, options: GateOptions | None = None) -> None:
        self._vad = vad
        self._options = options or GateOptions()
        self._exit_threshold = max(self._options.threshold - HYSTERESIS, 0.01)
        self._max_length = int(self._options.max_segment_s * SAMPLE_RATE)
        self._cut_length = int(min(CUT_SECONDS * SAMPLE_RATE, CUT_FRACTION * self._max_length))
        self._recent: deque[Waveform] = deque(maxlen=self._cut_length // FRAME_LENGTH + 2)
        self._position = 0  # every frame before it was judged
        self._closed = 0  # where the last segment ended: no other starts before
        self._sure_until = 0  # speech that starts before this goes on with a segment that was full
        self._forget()

    @property
    def decided(self) -> int:
        """See Gate."""
        if self._open is not None:
            return self._position if self._pause is None else self._pause
        return self._padded(self._position if self._speech is None else self._speech)

    @property
    def expected(self) -> Closed | None:
        """See Gate."""
        if self._open is None or self._pause is None:
            return None
        end = self._pause + _samples(self._options.speech_pad_ms)
        known = max(end, self._pause + _samples(EXPECTED_AFTER_MS))
        return Closed(self._open, end, "pause") if self._position >= known else None

    @property
    def pausing(self) -> bool:
        """See Gate."""
        return self._open is not None and self._pause is not None

    @property
    def earliest_event(self) -> int:
        """See Gate."""
        if self._open is not None or self._position < self._sure_until:
            return FRAME_LENGTH
        begun = self._position if self._speech is None else self._speech
        needed = begun + _samples(self._options.min_speech_ms) - self._position
        return max(1, -(-needed // FRAME_LENGTH)) * FRAME_LENGTH

    def step(self, samples: Waveform) -> list[GateEvent]:
        """See Gate. Raises RunError when the graph fails."""
        return [event for events in self.frames(samples) for event in events]

    def frames(self, samples: Waveform) -> Iterator[list[GateEvent]]:
        """See Gate. Raises RunError when the graph fails."""
        waiting = np.concatenate([self._waiting, samples])
        n_whole = len(waiting) // FRAME_LENGTH * FRAME_LENGTH
        self._waiting = waiting[n_whole:].copy()
        if not n_whole:
            return
        probabilities, self._state = self._vad.step(waiting[:n_whole], self._state)
        for probability, at in zip(probabilities, range(0, n_whole, FRAME_LENGTH), strict=True):
            yield self._judge(probability, waiting[at : at + FRAME_LENGTH])

    def flush(self) -> list[GateEvent]:
        """See Gate."""
        events: list[GateEvent] = []
        if n := len(self._waiting):
            (probability,), self._state = self._vad.step(np.pad(self._waiting, (0, FRAME_LENGTH - n)), self._state)
            events += self._judge(probability, self._waiting)
        events += self._close("end")
        self._closed = self._position
        self._forget()
        return events

    def gap(self, n: int) -> list[GateEvent]:
        """See Gate."""
        events = self.flush()
        self._position += n
        self._closed = self._position
        return events

    def _forget(self) -> None:
        """As before the first sample, but for the positions."""
        self._state = self._vad.create_state()
        self._waiting: Waveform = np.zeros(0, np.float32)  # less than a frame
        self._recent.clear()
        self._open: int | None = None  # start of the segment
        self._speech: int | None = None  # where speech began that may be too short for a segment
        self._pause: int | None = None  # where the pause began that may end it

    def _judge(self, probability: float, frame: Waveform) -> list[GateEvent]:
        """One frame, the last of a stream less than 512 samples."""
        start = self._position
        self._position = self._position + len(frame)
        self._recent.append(frame)
        if probability >= self._options.threshold:
            self._pause = None
            self._speech = start if self._speech is None else self._speech
        elif probability < self._exit_threshold and self._speech is not None and self._pause is None:
            self._pause = start
        return [*self._start(), *self._cut(), *self._stop()]

    def _start(self) -> list[GateEvent]:
        """Open a segment once speech is long enough."""
        if self._open is not None or self._speech is None or self._pause is not None:
            return []
        needed = 0 if self._speech < self._sure_until else _samples(self._options.min_speech_ms)
        if self._position - self._speech < needed:
            return []
        self._open = self._padded(self._speech)
        return [Opened(self._open)]

    def _cut(self) -> list[GateEvent]:
        """End a segment that is full; speech goes on in the next."""
        if self._open is None or self._position < (full := self._open + self._max_length):
            return []
        recent = np.concatenate(self._recent)[: full - self._position or None]
        cut = full - self._cut_length + quietest_point(recent[-self._cut_length :])
        closed = Closed(self._open, cut, "full")
        self._closed = cut
        if self._pause is None or cut < self._pause:
            self._open = cut
            return [closed, Opened(cut)]
        self._sure_until = self._pause + _samples(self._options.min_silence_ms)
        self._open = self._speech = self._pause = None
        return [closed]

    def _stop(self) -> list[GateEvent]:
        """End the speech when its pause is long enough."""
        if self._pause is None or self._position - self._pause < _samples(self._options.min_silence_ms):
            return []
        return self._close("pause")

    def _close(self, reason: Literal["pause", "end"]) -> list[GateEvent]:
        start, pause = self._open, self._pause
        self._open = self._speech = self._pause = None
        if start is None:
            return []
        pad = _samples(self._options.speech_pad_ms)
        self._closed = self._position if pause is None else min(pause + pad, self._position)
        return [Closed(start, self._closed, reason)]

    def _padded(self, start: int) -> int:
        return max(start - _samples(self._options.speech_pad_ms), self._closed)


class FixedGate:
    """Segments of a fixed length, for sounds and music; a new one does not start in digital silence."""

    def __init__(self, max_segment_s: float = 30.0) -> None:
        """Raises InputError for a length that no model takes."""
        _check_max_segment(max_segment_s)
        self._max_length = int(max_segment_s * SAMPLE_RATE)
        self._waiting: Waveform = np.zeros(0, np.float32)
        self._position = 0
        self._open: int | None = None

    @property
    def decided(self) -> int:
        """See Gate."""
        return self._position

    @property
    def expected(self) -> Closed | None:
        """See Gate."""
        return None

    @property
    def pausing(self) -> bool:
        """See Gate."""
        return False

    @property
    def earliest_event(self) -> int:
        """See Gate."""
        return self._block_length() - len(self._waiting)

    def step(self, samples: Waveform) -> list[GateEvent]:
        """See Gate."""
        waiting = np.concatenate([self._waiting, samples])
        events: list[GateEvent] = []
        at = 0
        while len(waiting) - at >= (n := self._block_length()):
            events += self._take(waiting[at : at + n])
            at += n
        self._waiting = waiting[at:].copy()
        return events

    def frames(self, samples: Waveform) -> Iterator[list[GateEvent]]:
        """See Gate."""
        for at in range(0, len(samples), FRAME_LENGTH):
            yield self.step(samples[at : at + FRAME_LENGTH])

    def flush(self) -> list[GateEvent]:
        """See Gate."""
        events = self._take(self._waiting) if len(self._waiting) else []
        self._waiting = np.zeros(0, np.float32)
        if self._open is not None:
            events.append(Closed(self._open, self._position, "end"))
            self._open = None
        return events

    def gap(self, n: int) -> list[GateEvent]:
        """See Gate."""
        events = self.flush()
        self._position += n
        return events

    def _block_length(self) -> int:
        if self._open is None:
            return FIXED_BLOCK
        return min(FIXED_BLOCK, self._open + self._max_length - self._position)

    def _take(self, block: Waveform) -> list[GateEvent]:
        events: list[GateEvent] = []
        if self._open is None and not is_silent(block):
            self._open = self._position
            events.append(Opened(self._open))
        self._position += len(block)
        if self._open is not None and self._position - self._open == self._max_length:
            events.append(Closed(self._open, self._position, "full"))
            self._open = None
        return events


def _samples(milliseconds: float) -> int:
    return round(milliseconds * SAMPLE_RATE / 1000)


def _check_max_segment(seconds: float) -> None:
    if not 1 <= seconds <= 30:
        raise InputError(f"max_segment_s {seconds} must be 1 to 30 s: the models take no more at once")
