"""Microphones that are muted, leak, refuse or give no numbers: each has its word, and no second is lost without one."""

from __future__ import annotations

import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import RunError
from auricle.runtime.events import AudioDropped, DeviceFound, DeviceLost, DeviceMuted
from auricle.runtime.sources.lateness import CREEP_S, Lateness
from auricle.runtime.sources.source import Chunk, SourceItem
from fake_microphone import FakeHost, SteppedMicrophone


def heard(microphone: SteppedMicrophone) -> tuple[int, list[SourceItem]]:
    """Samples, and what else was told."""
    items: list[SourceItem] = []
    while new := microphone.read(0):
        items += new
    return sum(len(item.waveform) for item in items if isinstance(item, Chunk)), [
        item for item in items if not isinstance(item, Chunk)
    ]


def test_a_muted_microphone_is_told_of_once_until_it_sounds() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.muted = [(1.0, 30.0), (31.0, 42.0)]
    host.stall(43)
    n, told = heard(microphone)
    first, second = told
    assert isinstance(first, DeviceMuted) and isinstance(second, DeviceMuted)
    assert 11 <= first.start_s < 11.5 and 10 <= first.seconds < 10.5 and first.name == "fake"
    assert 41 <= second.start_s < 41.5
    assert n == round(host.now)


def test_zeros_of_two_devices_are_not_added_up() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.muted = [(0.0, 100.0)]
    for _ in range(4):
        host.stall(6)
        microphone.lose()
        microphone.find_again()
    assert not any(isinstance(item, DeviceMuted) for item in heard(microphone)[1])


def test_losses_too_short_to_tell_are_added_up() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    for _ in range(200):
        host.deliver(1600)
        host.lose(0.02)
    host.deliver(1600)
    n, told = heard(microphone)
    lost_s = sum(item.seconds for item in told if isinstance(item, AudioDropped))
    assert len(told) == 3 and abs(n / SAMPLE_RATE + lost_s - host.now / SAMPLE_RATE) < CREEP_S


def test_a_clock_that_drifts_is_no_loss() -> None:
    lateness = Lateness()
    for i in range(36_000):  # an hour, a second apart at its end
        at_s = i * 0.1
        assert lateness.missing(1000 + at_s * 1.0003, at_s * 1.0003 + 0.05 * (i % 3), told=False) == 0
        lateness.place(0.1)


def test_what_is_no_number_is_lost() -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.deliver(1600)
    host.give(np.array([[0.0, 0.0], [np.inf, 0.0], [np.nan, 0.1]] * 160, np.float32))
    host.deliver(1600)
    n, told = heard(microphone)
    assert n == 3200 and told == [AudioDropped(0.1, 0.03)]


@pytest.mark.parametrize("error", [RunError("it is busy"), OSError("a driver"), ValueError("a library")])
def test_a_device_that_another_program_holds_is_waited_for(error: Exception) -> None:
    host = FakeHost()
    microphone = SteppedMicrophone(host)
    host.deliver(1600)
    microphone.lose()
    host.refusals = [error, error]
    host.exchange(48_000)  # meanwhile another one is the system's choice
    found = [microphone.find_again() for _ in range(3)]
    host.lose(1.0)
    host.deliver(4800)
    n, told = heard(microphone)
    assert found == [False, False, True] and n > 3000
    assert told == [DeviceLost(0.1, "fake"), DeviceFound(1.1, "fake at 48000 Hz", 1.0)]
