"""Audio formats: bytes of PCM or G.711, in base64 -> float32 samples at the format's own rate.

Source: ITU-T G.711, whose 256 codes a law are listed here once.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from .....models.audio import Waveform
from ....audio.resample import Resampler
from ...errors import invalid
from ..json_fields import Fields

PCM_RATES = (24_000, 16_000)
G711_RATE = 8_000
MU_BIAS = 0x84
_CODES = np.arange(256)


def _mu_law() -> Waveform:
    code = ~_CODES & 0xFF
    magnitude = (((code & 0x0F) << 3) + MU_BIAS << (code >> 4 & 7)) - MU_BIAS
    return (np.where(code & 0x80, -magnitude, magnitude) / 2.0**15).astype(np.float32)


def _a_law() -> Waveform:
    code = _CODES ^ 0x55
    exponent = code >> 4 & 7
    mantissa = (code & 0x0F) << 4
    magnitude = np.where(exponent == 0, mantissa + 8, (mantissa + 0x108) << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 2.0**15).astype(np.float32)


G711_TABLES = {"audio/pcmu": _mu_law(), "audio/pcma": _a_law()}


@dataclass(frozen=True)
class AudioFormat:
    """What a client's bytes mean."""

    type: str = "audio/pcm"
    rate: int = PCM_RATES[0]

    def as_json(self) -> dict[str, Any]:
        """As clients write it."""
        return {"type": self.type, "rate": self.rate} if self.type == "audio/pcm" else {"type": self.type}

    def decode(self, text: str, param: str) -> Waveform:
        """Base64 of whole samples -> float32 [n] at `rate`. Raises ApiError."""
        try:
            data = base64.b64decode(text.encode(), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            raise invalid(f"{param} is no base64", param) from None
        if self.type != "audio/pcm":
            return G711_TABLES[self.type][np.frombuffer(data, np.uint8)]
        if len(data) % 2:
            raise invalid(f"{param} holds {len(data)} bytes, which are no 16-bit samples", param)
        return np.frombuffer(data, "<i2").astype(np.float32) / 2.0**15

    def decode_whole(self, text: str, param: str) -> Waveform:
        """The same at 16 kHz, for a sound that comes at once."""
        resampler = Resampler()
        return np.concatenate([resampler.push(self.decode(text, param), self.rate), resampler.flush()])


def read_format(fields: Fields) -> AudioFormat:
    """Raises ApiError."""
    kind = fields.text("type")
    if kind in G711_TABLES:
        return AudioFormat(kind, G711_RATE)
    if kind != "audio/pcm":
        raise invalid(f"'{kind}' is not one of audio/pcm, {', '.join(G711_TABLES)}", fields.name("type"))
    rate = fields.number("rate", PCM_RATES[0], 1, 1e6)
    if rate not in PCM_RATES:
        raise invalid(f"the rate of PCM is {' or '.join(map(str, PCM_RATES))}, not {rate:g}", fields.name("rate"))
    return AudioFormat(kind, int(rate))
