"""The filter bank's product: the plain one's numbers, and no thread but the one that asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from auricle.models.encoders.filter_bank import ALONE, band_power

WITHOUT_HELP = """
import os
import time
from pathlib import Path
from auricle.models.audio import synthetic_clip
from auricle.models.encoders.beats import fbank
from auricle.models.encoders.whisper import WhisperSpec, log_mel

def ticks():
    others = [task for task in Path("/proc/self/task").iterdir() if task.name != str(os.getpid())]
    stats = [(task / "stat").read_text().rsplit(")", 1)[1].split() for task in others]
    return sum(int(stat[11]) + int(stat[12]) for stat in stats)

clip, spec = synthetic_clip(0, 10.0), WhisperSpec(n_mels=80, n_positions=500, d_model=8, n_heads=1, n_layers=1, d_ffn=8)
time.sleep(1.0)  # until those that numpy has just started sleep
before = ticks()
for _ in range(20):
    log_mel(clip, spec)
    fbank(clip)
print(ticks() - before)
"""


@pytest.mark.parametrize("n_frames", [0, 1, 15, 16, 17, 300])
@pytest.mark.parametrize("n_bands", [80, 128, 2048])
def test_it_is_the_plain_product(n_frames: int, n_bands: int) -> None:
    rng = np.random.default_rng(n_frames)
    spectrum = rng.standard_normal((n_frames, 201)) + 1j * rng.standard_normal((n_frames, 201))
    filters = rng.random((201, n_bands))
    wanted = (spectrum.real**2 + spectrum.imag**2) @ filters
    assert band_power(spectrum, filters).shape == wanted.shape
    np.testing.assert_allclose(band_power(spectrum, filters), wanted, rtol=1e-12)
    assert filters.size < ALONE or n_bands == 2048


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux")
def test_front_ends_leave_the_other_cores_alone() -> None:
    """Or they spin there while the graphs and the language model begin."""
    own = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", WITHOUT_HELP], capture_output=True, text=True, check=True, env=own)
    assert int(done.stdout) <= 1
