"""A source that fails -> one that ends there, so that what came before is still heard."""

from __future__ import annotations

from ...models.errors import AuricleError
from .source import Source, SourceItem


class UntilError:
    """A source whose failure ends the session as its end would, so that its sound is still decoded; see `error`."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: AuricleError | None = None

    @property
    def realtime(self) -> bool:
        """See Source."""
        return self._source.realtime

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        """See Source."""
        try:
            return None if self.error else self._source.read(timeout_s)
        except AuricleError as error:
            self.error = error
            return None

    def close(self) -> None:
        """See Source."""
        self._source.close()
