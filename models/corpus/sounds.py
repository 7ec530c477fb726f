"""Synthesized everyday sounds: a name and a generator -> a waveform, and the words that describe it.

Every synthesizer takes a generator and a length in samples and returns a float64 array at 16 kHz of any
loudness; `random_sound` scales it. Nothing is recorded: each class is a few lines of arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..audio import SAMPLE_RATE, Waveform

_Samples = NDArray[np.float64]
_Synthesizer = Callable[[Generator, int], _Samples]


def _time(n: int) -> _Samples:
    return np.arange(n) / SAMPLE_RATE


def _noise(g: Generator, n: int, low: float, high: float) -> _Samples:
    """White noise kept between two frequencies, unit power."""
    spectrum = np.fft.rfft(g.standard_normal(n))
    hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    band = np.fft.irfft(spectrum * ((hz >= low) & (hz <= high)), n)
    return band / max(float(band.std()), 1e-9)


def _tone(frequency: _Samples | float, n: int) -> _Samples:
    """A sine whose frequency in Hz may change from sample to sample."""
    return np.sin(2 * np.pi * np.cumsum(np.broadcast_to(frequency, n)) / SAMPLE_RATE)


def _place(n: int, starts: list[float], event: Callable[[], _Samples]) -> _Samples:
    """Add one `event()` at each start, in seconds; what passes the end is cut."""
    out = np.zeros(n)
    for start in starts:
        first = int(start * SAMPLE_RATE)
        sound = event()[: max(n - first, 0)]
        out[first : first + len(sound)] += sound
    return out


def _steady(g: Generator, n: int, period: float, jitter: float = 0.0) -> list[float]:
    """Start times in seconds, one per `period`, each moved by up to `jitter` periods."""
    starts = np.arange(g.uniform(0, 0.3), n / SAMPLE_RATE, period)
    return [max(0.0, float(start + period * jitter * g.uniform(-1, 1))) for start in starts]


def _bell(g: Generator, n: int) -> _Samples:
    base = g.uniform(400, 1100)
    decay = g.uniform(0.8, 1.6)
    partials = ((0.5, 0.4), (1.0, 1.0), (1.19, 0.6), (1.5, 0.4), (2.0, 0.7), (2.74, 0.4), (3.76, 0.25))

    def strike() -> _Samples:
        t = _time(int(3 * SAMPLE_RATE))
        rings = [a * np.sin(2 * np.pi * base * r * t) * np.exp(-t * (2 + r) / decay) for r, a in partials]
        return np.sum(rings, axis=0)

    return _place(n, _steady(g, n, g.uniform(0.9, 1.6)), strike)


def _siren(g: Generator, n: int) -> _Samples:
    low = g.uniform(450, 700)
    high = g.uniform(1100, 1600)
    rate = g.uniform(0.3, 1.2)
    sweep = 0.5 - 0.5 * np.cos(2 * np.pi * (rate * _time(n) + g.uniform()))
    if g.uniform() < 0.4:
        sweep = (sweep > 0.5).astype(np.float64)
    phase = low + (high - low) * sweep
    return _tone(phase, n) + 0.4 * _tone(2 * phase, n) + 0.2 * _tone(3 * phase, n)


def _rain(g: Generator, n: int) -> _Samples:
    hiss = _noise(g, n, g.uniform(800, 1500), g.uniform(6500, 7900))
    drops = np.where(g.uniform(size=n) < g.uniform(0.004, 0.012), g.exponential(1.0, n), 0.0)
    return 0.25 * hiss + np.convolve(drops, np.exp(-np.arange(60) / 8.0) * (-1.0) ** np.arange(60))[:n]


def _engine(g: Generator, n: int) -> _Samples:
    speed = g.uniform(35, 75) * (1 + 0.15 * np.sin(2 * np.pi * g.uniform(0.1, 0.4) * _time(n) + g.uniform(0, 6)))
    harmonics = [_tone(speed * k, n) * g.uniform(0.4, 1.0) / k**0.7 for k in range(1, 14)]
    return np.sum(harmonics, axis=0) + 0.3 * _noise(g, n, 20, 500)


def _knocking(g: Generator, n: int) -> _Samples:
    pitch = g.uniform(120, 260)
    gap = g.uniform(0.16, 0.26)
    count = int(g.integers(3, 5))

    def knock() -> _Samples:
        t = _time(int(0.12 * SAMPLE_RATE))
        thump = np.sin(2 * np.pi * pitch * t) + 0.5 * np.sin(2 * np.pi * 2.3 * pitch * t)
        return (thump + 0.8 * _noise(g, len(t), 100, 1800)) * np.exp(-t * 45)

    starts = [s + gap * k for s in _steady(g, n, gap * count + g.uniform(0.4, 0.8)) for k in range(count)]
    return _place(n, starts, knock)


def _ticking(g: Generator, n: int) -> _Samples:
    pitches = g.uniform(2500, 3800), g.uniform(1800, 2500)
    period = g.uniform(0.25, 0.55)

    def tick(pitch: float) -> _Samples:
        t = _time(int(0.03 * SAMPLE_RATE))
        return np.sin(2 * np.pi * pitch * t) * np.exp(-t * 300)

    starts = _steady(g, n, period)
    return _place(n, starts[::2], lambda: tick(pitches[0])) + _place(n, starts[1::2], lambda: tick(pitches[1]))


def _beeping(g: Generator, n: int) -> _Samples:
    pitch = g.uniform(1500, 3200)
    length = g.uniform(0.08, 0.25)

    def beep() -> _Samples:
        m = int(length * SAMPLE_RATE)
        return _tone(pitch, m) * np.minimum(1, np.minimum(np.arange(m), np.arange(m)[::-1]) / 80)

    return _place(n, _steady(g, n, length + g.uniform(0.12, 0.5)), beep)


def _music(g: Generator, n: int) -> _Samples:
    root = g.uniform(130, 260)
    beat = g.uniform(0.35, 0.7)
    chords = [(0, 4, 7), (5, 9, 12), (7, 11, 14), (-3, 0, 4)]

    def chord() -> _Samples:
        t = _time(int(1.5 * beat * SAMPLE_RATE))
        notes = [root * 2 ** (k / 12) for k in chords[int(g.integers(4))]]
        waves = [np.sin(2 * np.pi * f * h * t) / h**1.3 for f in notes for h in range(1, 6)]
        return np.sum(waves, axis=0) * np.exp(-t * 2.5) * np.minimum(1, t * 100)

    return _place(n, _steady(g, n, beat), chord)


def _wind(g: Generator, n: int) -> _Samples:
    gusts = 0.55 + 0.45 * np.sin(2 * np.pi * g.uniform(0.2, 0.5) * _time(n) + g.uniform(0, 6))
    howl = _tone(g.uniform(300, 500) * (0.8 + 0.4 * gusts), n) * gusts
    return gusts * _noise(g, n, 60, g.uniform(500, 900)) + 0.4 * howl


def _birds(g: Generator, n: int) -> _Samples:
    def chirp() -> _Samples:
        m = int(g.uniform(0.06, 0.16) * SAMPLE_RATE)
        sweep = np.linspace(g.uniform(3000, 6000), g.uniform(3000, 6000), m)
        wobble = 1 + 0.06 * np.sin(2 * np.pi * g.uniform(25, 45) * _time(m))
        return _tone(sweep * wobble, m) * np.hanning(m)

    return _place(n, _steady(g, n, g.uniform(0.14, 0.3), 0.5), chirp)


def _dog(g: Generator, n: int) -> _Samples:
    pitch = g.uniform(280, 520)

    def bark() -> _Samples:
        m = int(g.uniform(0.14, 0.22) * SAMPLE_RATE)
        curve = pitch * (0.7 + 0.6 * np.sin(np.linspace(0.3, np.pi, m)))
        voice = np.sum([_tone(curve * k, m) / k**0.6 for k in range(1, 9)], axis=0)
        return (voice + 0.8 * _noise(g, m, 400, 3000)) * np.sin(np.linspace(0, np.pi, m)) ** 0.6

    return _place(n, _steady(g, n, g.uniform(0.35, 0.7), 0.15), bark)


def _phone(g: Generator, n: int) -> _Samples:
    low = g.uniform(900, 1300)
    high = g.uniform(1400, 2100)
    warble = g.uniform(15, 25)

    def ring() -> _Samples:
        m = int(g.uniform(0.7, 1.0) * SAMPLE_RATE)
        tones = np.where(np.sin(2 * np.pi * warble * _time(m)) > 0, low, high)
        return _tone(tones, m) * np.minimum(1, np.arange(m)[::-1] / 400)

    return _place(n, _steady(g, n, g.uniform(1.2, 1.7)), ring)


def _footsteps(g: Generator, n: int) -> _Samples:
    def step() -> _Samples:
        t = _time(int(0.16 * SAMPLE_RATE))
        heel = _noise(g, len(t), 60, 350) * np.exp(-t * 40)
        scrape = _noise(g, len(t), 1500, 5000) * np.exp(-(((t - 0.06) / 0.03) ** 2))
        return heel + 0.35 * scrape

    return _place(n, _steady(g, n, g.uniform(0.45, 0.75), 0.06), step)


def _dripping(g: Generator, n: int) -> _Samples:
    def drop() -> _Samples:
        m = int(g.uniform(0.06, 0.1) * SAMPLE_RATE)
        start = g.uniform(700, 1200)
        return _tone(np.linspace(start, 2.2 * start, m), m) * np.exp(-_time(m) * 45)

    return _place(n, _steady(g, n, g.uniform(0.3, 0.8), 0.3), drop)


_SYNTHESIZERS: dict[str, tuple[_Synthesizer, str]] = {
    "bell": (_bell, "a bell is ringing"),
    "siren": (_siren, "a siren is wailing"),
    "rain": (_rain, "rain is falling"),
    "engine": (_engine, "an engine is running"),
    "knocking": (_knocking, "someone is knocking on a door"),
    "ticking": (_ticking, "a clock is ticking"),
    "beeping": (_beeping, "a machine is beeping"),
    "music": (_music, "music is playing"),
    "wind": (_wind, "the wind is blowing"),
    "birds": (_birds, "birds are chirping"),
    "dog": (_dog, "a dog is barking"),
    "phone": (_phone, "a phone is ringing"),
    "footsteps": (_footsteps, "someone is walking"),
    "dripping": (_dripping, "water is dripping"),
}
SOUND_NAMES = tuple(_SYNTHESIZERS)


def caption(name: str) -> str:
    """The sentence that describes a sound, e.g. 'rain is falling'."""
    return _SYNTHESIZERS[name][1]


def synthesize(name: str, rng: Generator, n_samples: int) -> Waveform:
    """One sound of class `name`: float32 [n_samples], peak 1."""
    samples = _SYNTHESIZERS[name][0](rng, n_samples)
    return (samples / max(float(np.abs(samples).max()), 1e-9)).astype(np.float32)


def random_sound(rng: Generator, n_samples: int) -> Waveform:
    """A sound of any class; peak 1."""
    return synthesize(SOUND_NAMES[int(rng.integers(len(SOUND_NAMES)))], rng, n_samples)
