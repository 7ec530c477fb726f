"""A package, so that its tests share what feeds a live session."""
