"""Sound files by PyAV: samples in, a file of any codec, or of several tracks of PCM at 16 kHz, out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from auricle.models.audio import SAMPLE_RATE
from numpy.typing import NDArray

_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def write_tracks(path: Path, *tracks: tuple[NDArray[np.int16], ...]) -> Path:
    """Each track has 1, 2 or 6 channels."""
    encoder: Any = av.open(str(path), "w")
    with encoder as out:
        streams = [out.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout=_LAYOUTS[len(track)]) for track in tracks]
        for stream, track in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(np.stack(track, 1).reshape(1, -1), "s16", _LAYOUTS[len(track)])
            frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
            out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return path


def encode_sound(
    path: Path,
    sound: NDArray[np.float32],
    codec: str,
    rate: int,
    container: str | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Samples in [-1, 1], [1, n] or [2, n], by PyAV; container: FFmpeg's name, where no suffix says it."""
    layout = _LAYOUTS[len(sound)]
    encoder: Any = av.open(str(path), "w", container, options=options or {})
    with encoder as out:
        stream = out.add_stream(codec, rate=rate)
        stream.layout = layout
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        context = stream.codec_context
        shaper = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or 1024)
        for piece in [*shaper.resample(frame), *shaper.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
