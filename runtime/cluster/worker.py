"""Worker: one process on a node with one opened bundle; a clip's path in, its captions out.

What it raises but for the clip's own faults is a try that failed: the driver counts those.
"""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

from ...models.errors import AuricleError, BundleError, InputError
from ..batch import answer_segments, require_batch, stream_in_batches
from ..bundle import Bundle
from ..cli.answers import collect, cut_remark
from ..cli.caption import CaptionCommand, timed_rows
from ..cli.options import use_keywords
from ..engine import Engine, load
from ..keywords import Keywords
from .bundle_cache import CachedBundle, Pieces
from .jobs import Captioned, Long, Task
from .parts import part_segments, parts_of

OPENED, NO_BUNDLE = "opened", "no bundle"
"""What `Worker.open` answers, unless it is a sentence about what went wrong."""


class Worker:
    """Ray calls its methods one after the other."""

    def __init__(self, command: CaptionCommand, cached: CachedBundle | None, n_workers: int) -> None:
        """cached: where this node keeps the bundle; None: it lies where the command says. n_workers: with this one."""
        self._command = command
        self._n_workers = n_workers
        self._cached = cached
        self._engine: Engine | None = None
        self._prompt = ""

    def open(self, pieces: Pieces | None = None) -> str:
        """Opens the bundle, copied from pieces if it is not here; OPENED, NO_BUNDLE or a sentence."""
        try:
            if self._cached is not None and not self._cached.directory.exists():
                if pieces is None:
                    return NO_BUNDLE
                self._cached.copy(pieces, _fetch)
            model = self._command.options.model
            directory = model.bundle if self._cached is None else self._cached.directory
            self._engine = load(directory, model.engine)
            use_keywords(self._command.options.keywords, self._engine)
            self._prompt = self._engine.prompt.prompt_for(self._command.task)
            self._require_question()
        except AuricleError as error:
            return f"{error} (on {platform.node()})"
        return OPENED

    def _require_question(self) -> None:
        """That each clip can be asked this: else each would be told the same. Raises InputError."""
        if self._engine is None:
            return
        generation = self._command.generation(self._engine, self._prompt)
        self._engine.require_aligner(self._prompt, generation)
        require_batch(self._command.batch, generation)
        if (n := self._engine.prompt.n_audios(self._prompt)) != 1:
            raise InputError(f"the prompt asks about {n} clips, and here each is asked about alone")

    def caption(self, task: Task) -> Captioned | Long:
        """Raises RunError, and whatever else goes wrong with this process and not with the clip."""
        if self._engine is None:
            raise RuntimeError("the bundle is not opened")
        clip, part = task.clip, task.part
        if not clip.exists():
            here = f"{clip} is not there on {platform.node()}"
            return Captioned(task, (), 0.0, f"{here}: clips must lie where every node sees them under the same path")
        options = self._command.options
        if part is None and (parts := parts_of(self._engine, clip, options.selection, self._n_workers)):
            return Long(clip, parts)
        generation = self._command.generation(self._engine, self._prompt)
        lanes = self._command.lanes_of(self._engine)
        if part is None:
            events = stream_in_batches(
                self._engine, clip, self._prompt, self._command.batch, generation, options.selection, lanes
            )
        else:
            segments = part_segments(self._engine, clip, part, options.selection)
            events = answer_segments(self._engine, segments, self._prompt, generation, self._command.batch, lanes)
        collected = collect(events, lambda _: None)
        error = collected.interruption
        if error is not None and not (isinstance(error, InputError) and not isinstance(error, BundleError)):
            raise error
        remarks = [cut_remark(final, options.decoding.schema) for final in collected.finals]
        begun_s = 0.0 if part is None else part.start_s
        return Captioned(
            task,
            tuple(timed_rows(collected, self._prompt, clip)),
            max((final.end_s - begun_s for final in collected.finals), default=0.0),
            None if error is None else str(error),
            tuple(line for line, _ in remarks if line),
            any(cut for _, cut in remarks),
        )


def on_nodes(command: CaptionCommand, bundle: Bundle) -> CaptionCommand:
    """The command as workers get it: nothing in it depends on the driver's directory or is read on a node again."""
    options = command.options
    options = replace(options, model=replace(options.model, bundle=bundle.directory.absolute()))
    if options.keywords is not None:
        options = replace(options, keywords=Keywords([",".join(options.keywords.words)]))
    return replace(command, clips=(), out=None, options=options)


def _fetch(piece: Any) -> bytes:
    import ray  # pyright: ignore[reportMissingImports]

    module: Any = ray
    return module.get(piece)
