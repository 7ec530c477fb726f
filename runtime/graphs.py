"""Graphs, the ONNX half of an opened bundle: the family's encoders, and the aligner once it is asked for.

Several threads may compute with them at once: a graph that runs keeps nothing, and its threads help whoever runs one.
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

from ..models.errors import InputError, RunError
from .aligner.aligner import Aligner
from .bundle import Bundle
from .families.registry import ENCODERS
from .system.ort import OrtOptions, choose_provider, open_session, release_memory

ALIGNER_REMEDY = "export it with --aligner, and a small Whisper such as openai/whisper-tiny.en"


class Graphs:
    """Close them when nobody computes any more. Raises BundleError, InputError, RunError."""

    def __init__(self, bundle: Bundle, options: OrtOptions) -> None:
        manifest = bundle.manifest
        cache = options.engine_cache or _engine_cache(bundle.directory)
        cached = replace(options, engine_cache=cache, longest_s=manifest.spec.seconds)
        self._sessions = {
            name: open_session(bundle.path(graph.file), graph.inputs, graph.outputs, cached)
            for name, graph in manifest.graphs.items()
        }
        self.encoders = ENCODERS[manifest.family](self._sessions, manifest.spec, bundle.directory)
        self.closed = False
        self._bundle = bundle
        self._options = options
        self._aligner: Aligner | None = None
        self._opening = threading.Lock()

    @property
    def on_cpu(self) -> bool:
        """Whether the encoders run there."""
        return choose_provider(self._options.provider) == "cpu"

    @property
    def aligner(self) -> Aligner:
        """Opened when it is first needed. Raises InputError for a bundle without one."""
        if self.closed:
            raise RunError("the engine is closed: open the bundle again")
        if self._bundle.manifest.aligner is None:
            raise InputError(f"{self._bundle.manifest.name} cannot time words: {ALIGNER_REMEDY}")
        with self._opening:
            if self._aligner is None:
                self._aligner = Aligner(self._bundle, self._options)
        return self._aligner

    def close(self) -> None:
        """Frees sessions and threads. Closing twice is fine."""
        self.closed = True
        self.encoders.close()
        if self._aligner is not None:
            self._aligner.close()
        for session in self._sessions.values():
            session.close()
        release_memory()


def _engine_cache(directory: Path) -> Path | None:
    """Where TensorRT keeps its engines: in the bundle, when it can be written."""
    return directory / "engines" if os.access(directory, os.W_OK) else None
