"""Lateness: the times of blocks on two clocks -> how much sound is missing between them.

A loss is late on both clocks. The device's alone may be set; ours alone is late while this program is busy.
"""

from __future__ import annotations

JUMP_S = 0.25  # between two blocks; less is jitter, unless the device itself says that it lost sound
CREEP_S = 1.0  # of many losses, each too short to tell, together; a stream on a busy machine wanders by 0.3 s
WINDOW_S = 30.0  # in so much sound: 3 % of it, where a clock's own drift is 0.1 % at most


class Lateness:
    """When the next sample is due by both clocks. Not thread-safe."""

    def __init__(self) -> None:
        self.begun = False
        """A block has come."""
        self._device_end_s = 0.0
        """Of the last block."""
        self._device_due_s = 0.0
        self._own_due_s = 0.0
        """By the earliest block since the window began."""
        self._placed_s = 0.0

    def place(self, seconds: float) -> None:
        """So much sound has come, or is missing and was told."""
        self._device_end_s += seconds
        self._device_due_s += seconds
        self._own_due_s += seconds
        self._placed_s += seconds

    def restart(self, device_s: float, clock_s: float) -> float:
        """The device was gone and is back: how late its first block is on our clock, seconds."""
        late_s = max(0.0, clock_s - self._own_due_s) if self.begun else 0.0
        self.begun = True
        self._device_end_s = device_s
        self._device_due_s = device_s
        self._own_due_s = clock_s
        self._placed_s = 0.0
        return late_s

    def missing(self, device_s: float, clock_s: float, told: bool) -> float:
        """Seconds missing before a block whose first sample has these times; 0 where it is too little to tell.

        told: the device says that it lost some.
        """
        if not self.begun:
            self.restart(device_s, clock_s)
            return 0.0
        since_end_s = device_s - self._device_end_s
        jump_s = max(0.0, min(since_end_s, clock_s - self._own_due_s))
        jump_s = jump_s if told or jump_s > JUMP_S else 0.0
        if abs(since_end_s - jump_s) > JUMP_S:  # the device's clock was set
            self._device_due_s += since_end_s - jump_s
        self.place(jump_s)
        creep_s = min(device_s - self._device_due_s, clock_s - self._own_due_s)
        creep_s = creep_s if creep_s > CREEP_S else 0.0
        self.place(creep_s)
        self._begin(device_s, clock_s)
        return jump_s + creep_s

    def _begin(self, device_s: float, clock_s: float) -> None:
        """A block: it may be the first of a window, or earlier than what was due."""
        over = self._placed_s > WINDOW_S
        self._device_end_s = device_s
        if over or device_s < self._device_due_s:
            self._device_due_s = device_s
        if clock_s < self._own_due_s or (over and clock_s - self._own_due_s <= CREEP_S):
            self._own_due_s = clock_s
        self._placed_s = 0.0 if over else self._placed_s
