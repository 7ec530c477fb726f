"""Metrics in Prometheus' text format: what was worked on, how long it was waited for. No words, no sound."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ..events import AudioDropped, Caption, DeviceFound, Final, LiveEvent, SessionEnded
from ..scheduler import Priority, Scheduler

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """One server's numbers, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge(
            "auricle_sessions", "Requests and connections worked on now.", ["protocol"], registry=self.registry
        )
        self._waiting = Gauge("auricle_queue", "Turns waited for now.", ["priority"], registry=self.registry)
        self._waited = Histogram(
            "auricle_turn_wait_seconds",
            "From asking for a turn to having it.",
            ["priority"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._held = Histogram(
            "auricle_turn_seconds",
            "How long a turn had the engine.",
            ["priority"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._latency = Histogram(
            "auricle_latency_seconds",
            "From the newest sound to its text.",
            ["kind"],
            registry=self.registry,
            buckets=SECONDS,
        )
        self._audio = Counter("auricle_audio_seconds", "Sound that was answered.", registry=self.registry)
        self._engine = Counter(
            "auricle_engine_seconds", "Time that the engine worked, on all lanes together.", registry=self.registry
        )
        self._speculated = Counter(
            "auricle_speculation_seconds",
            "Engine time for finals whose pause was not over yet.",
            ["outcome"],
            registry=self.registry,
        )
        self._dropped = Counter("auricle_dropped_seconds", "Sound that was lost.", registry=self.registry)
        factor = Gauge(
            "auricle_real_time_factor",
            "Engine time, on all lanes together, per second of sound.",
            registry=self.registry,
        )
        factor.set_function(self._real_time_factor)
        needed = "Share of the engine that the open live streams need, with updates at their rarest."
        self._load = Gauge("auricle_load", needed, registry=self.registry)
        self._engine_s = 0.0
        self._audio_s = 0.0

    def watch(self, scheduler: Scheduler, load: Callable[[], float]) -> None:
        """Count who waits there; load: of the live streams that are open."""
        self._load.set_function(load)
        for priority in Priority:
            self._waiting.labels(priority.name.lower()).set_function(lambda each=priority: scheduler.waiting()[each])

    def turn(self, priority: Priority, waited_s: float, held_s: float) -> None:
        """A turn is over."""
        name = priority.name.lower()
        self._waited.labels(name).observe(waited_s)
        self._held.labels(name).observe(held_s)
        self._engine.inc(held_s)
        self._engine_s += held_s

    def answered(self, seconds: float) -> None:
        """A segment of sound has its text."""
        self._audio.inc(seconds)
        self._audio_s += seconds

    def live(self, event: LiveEvent, latency_s: float) -> None:
        """An event of a live session; latency_s: from its newest sound until now."""
        if isinstance(event, Caption):
            self._latency.labels("update").observe(latency_s)
        elif isinstance(event, Final):
            self._latency.labels("final").observe(latency_s)
            self.answered(event.end_s - event.start_s)
        elif isinstance(event, AudioDropped):
            self._dropped.inc(event.seconds)
        elif isinstance(event, DeviceFound):
            self._dropped.inc(event.seconds_lost)
        elif isinstance(event, SessionEnded):
            self._speculated.labels("used").inc(event.speculated_s - event.wasted_s)
            self._speculated.labels("wasted").inc(event.wasted_s)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)

    def _real_time_factor(self) -> float:
        return self._engine_s / self._audio_s if self._audio_s else 0.0
