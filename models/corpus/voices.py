"""Synthetic speech: text and an espeak-ng or flite voice -> a waveform, and the rooms it is heard in.

Waveforms are float32 mono 16 kHz in [-1, 1]. Both synthesizers are Debian packages that are run as
commands; only training and evaluation of the demo model need them, never the runtime.
"""

import io
import random
import shutil
import subprocess
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, RunError

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker: the command that speaks it and the name that command knows it by."""

    engine: str
    """'espeak-ng' or 'flite', which is also the name of the Debian package."""
    name: str

    @property
    def label(self) -> str:
        """What reports call this voice, e.g. 'flite:slt'."""
        return f"{self.engine}:{self.name}"


_ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan", "en-us-nyc")
_VARIANTS = (
    "", "", "+m1", "+m2", "+m3", "+m4", "+m5", "+m6", "+m7", "+m8", "+f1", "+f2", "+f3", "+f4", "+f5", "+klatt",
    "+klatt2", "+klatt3", "+Andy", "+Annie", "+adam", "+anika", "+boris", "+max", "+Mike", "+steph",
    "+john", "+quincy", "+rob", "+travis", "+victor", "+zac", "+Alicia", "+belinda", "+edward", "+Lee",
)  # fmt: skip
TRAIN_VOICES = (
    *(Voice("espeak-ng", accent + variant) for accent in _ACCENTS for variant in _VARIANTS),
    *(Voice("flite", name) for name in ("kal16", "rms", "awb")),
)
UNSEEN_VOICES = (
    Voice("flite", "slt"),  # a woman's recorded voice; the flite voices of training are all men
    Voice("espeak-ng", "en-gb-x-gbcwmd"),  # the West Midlands accent
    Voice("espeak-ng", "en-us+linda"),
    Voice("espeak-ng", "en-gb-scotland+klatt4"),
)
_FLITE_SHARE = 0.33  # of training clips: three voices against many espeak variants of one synthesizer
_PITCHES = {
    "kal16": ("int_f0_target_mean", 85.0, 220.0),
    "rms": ("f0_shift", 0.85, 2.0),
    "awb": ("f0_shift", 0.85, 2.0),
}
"""How the pitch of flite's three men can be set and how far: in Hz, or as a factor."""


def training_voice(rng: random.Random) -> Voice:
    """Draw a training voice: about a quarter flite, the rest espeak-ng."""
    engine = "flite" if rng.random() < _FLITE_SHARE else "espeak-ng"
    return rng.choice([voice for voice in TRAIN_VOICES if voice.engine == engine])


def speak(text: str, voice: Voice, rng: random.Random) -> np.ndarray:
    """Synthesize `text`, at a speed and pitch drawn from `rng`; flite:slt, held out, keeps its own pitch.

    Returns the waveform [n_samples]. Raises InputError when the synthesizer is not installed and
    RunError when it fails.
    """
    if shutil.which(voice.engine) is None:
        raise InputError(
            f"{voice.engine} is not installed, and the demo model's voices need it: "
            f"install the Debian package {voice.engine!r} (apt-get install {voice.engine})"
        )
    data = _espeak(text, voice.name, rng) if voice.engine == "espeak-ng" else _flite(text, voice.name, rng)
    pcm, rate = _read_wave(data, voice)
    peak = float(np.abs(pcm).max(initial=0.0))
    if peak == 0.0:
        raise RunError(f"{voice.label} was silent when it was asked to say {text!r}")
    return resample(pcm * (0.6 / peak), rate, SAMPLE_RATE)


def resample(waveform: np.ndarray, rate_in: int, rate_out: int) -> np.ndarray:
    """Band-limited resampling by cutting or padding the spectrum; the ends are treated as periodic."""
    if rate_in == rate_out:
        return waveform.astype(np.float32)
    step = int(np.gcd(rate_in, rate_out))
    block_in = rate_in // step
    block_out = rate_out // step
    n_blocks = -(-len(waveform) // block_in)
    padded = np.zeros(n_blocks * block_in)
    padded[: len(waveform)] = waveform
    n_out = n_blocks * block_out
    spectrum = np.fft.rfft(padded)[: n_out // 2 + 1]
    out = np.fft.irfft(spectrum, n_out) * (n_out / len(padded))
    return out[: int(len(waveform) * rate_out / rate_in)].astype(np.float32)


def add_noise(waveform: np.ndarray, rng: np.random.Generator, snr_db: float) -> np.ndarray:
    """Add coloured noise at `snr_db` below the waveform's mean power."""
    slope = rng.uniform(0.0, 1.0)
    spectrum = np.fft.rfft(rng.standard_normal(len(waveform)))
    spectrum /= np.maximum(np.arange(len(spectrum)), 1.0) ** slope
    noise = np.fft.irfft(spectrum, len(waveform))
    return mix(waveform, noise, snr_db)


def mix(speech: np.ndarray, background: np.ndarray, snr_db: float) -> np.ndarray:
    """Add `background` (as long as `speech`) so that speech is `snr_db` stronger in mean power."""
    power = float(np.mean(speech**2)), float(np.mean(background**2))
    if min(power) <= 0.0:
        return (speech + background).astype(np.float32)
    gain = np.sqrt(power[0] / power[1]) * 10 ** (-snr_db / 20)
    return (speech + gain * background).astype(np.float32)


def reverberate(waveform: np.ndarray, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Convolve with a decaying noise tail of `seconds` (60 dB decay), below the direct sound."""
    n = max(int(seconds * SAMPLE_RATE), 1)
    tail = rng.standard_normal(n) * 10 ** (-3.0 * np.arange(n) / n)
    tail *= rng.uniform(0.2, 0.6) / np.sqrt(np.sum(tail**2))
    tail[0] = 1.0
    size = 1 << (len(waveform) + n - 1).bit_length()
    wet = np.fft.irfft(np.fft.rfft(waveform, size) * np.fft.rfft(tail, size), size)
    return wet[: len(waveform)].astype(np.float32)


def set_peak(waveform: np.ndarray, peak: float) -> np.ndarray:
    """Scale to a given absolute peak; silence stays silence."""
    highest = float(np.abs(waveform).max(initial=0.0))
    return (waveform * (peak / highest if highest else 0.0)).astype(np.float32)


def _espeak(text: str, name: str, rng: random.Random) -> bytes:
    speed = str(rng.randint(135, 195))
    pitch = str(rng.randint(25, 75))
    return _run(["espeak-ng", "-v", name, "-s", speed, "-p", pitch, "--stdout", text])


def _flite(text: str, name: str, rng: random.Random) -> bytes:
    options = ["--setf", f"duration_stretch={rng.uniform(0.85, 1.2):.3f}"]
    if name in _PITCHES and rng.random() < 0.5:
        feature, low, high = _PITCHES[name]
        options += ["--setf", f"{feature}={rng.uniform(low, high):.3f}"]
    with tempfile.TemporaryDirectory(prefix="auricle-flite-") as folder:
        path = Path(folder) / "speech.wav"
        _run(["flite", "-voice", name, *options, "-t", text, "-o", str(path)])
        return path.read_bytes()


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip() or f"exit status {done.returncode}"
        raise RunError(f"{command[0]} failed: {reason}")
    return done.stdout


def _read_wave(data: bytes, voice: Voice) -> tuple[np.ndarray, int]:
    """Samples as float in [-1, 1] and their rate; espeak-ng's streamed header lies about its length."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate = file.getframerate()
    except (wave.Error, EOFError) as error:
        raise RunError(f"{voice.label} wrote no readable WAV: {error}") from error
    start = data.index(b"data") + 8
    body = data[start : start + (len(data) - start) // 2 * 2]
    return np.frombuffer(body, "<i2").astype(np.float32) / 32768, rate
