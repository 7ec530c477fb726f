"""Manifests of older bundles: their JSON -> the same in today's schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from .errors import BundleError
from .families import salmonn

SCHEMA_VERSION = 3
_OLDER_SCHEMA = 2
"""The exporter's version stood under the project's old name, and nothing said which language models chat."""
_OLD_DEMOS = ("earshot-demo", "earshot-demo-salm")


def current(document: Any, path: Path) -> Any:
    """The manifest's JSON in today's schema. Raises BundleError for a version that is neither today's nor the last."""
    found = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    version = found.get("schema_version")
    if version == _OLDER_SCHEMA:
        return _with_added(_from_schema_2(found))
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version!r}, this Auricle reads {SCHEMA_VERSION}: "
            "export the bundle again, or install the Auricle that made it"
        )
    return _with_added(found)


def _with_added(found: dict[str, Any]) -> dict[str, Any]:
    """What a manifest did not say once: no aligner, nothing too unsure; every SALMONN and aligner heard its window."""
    found = {"aligner": None} | found
    if isinstance(aligner := found["aligner"], dict):
        found |= {"aligner": {"any_length": False} | cast(dict[str, Any], aligner)}
    if isinstance(generation := found.get("generation"), dict):
        found |= {"generation": {"min_avg_logprob": None} | cast(dict[str, Any], generation)}
    spec = cast(Any, found.get("spec"))
    if found.get("family") != salmonn.FAMILY or not isinstance(spec, dict):
        return found
    return found | {"spec": {"hears": "window"} | cast(dict[str, Any], spec)}


def _from_schema_2(found: dict[str, Any]) -> dict[str, Any]:
    """What is wrong with it stays as it is, for `decode` to say."""
    parts = {
        name: cast("dict[str, Any]", part)
        for name in ("provenance", "llm")
        if isinstance(part := found.get(name), dict)
    }
    if "provenance" in parts:
        made_by = parts["provenance"]
        parts["provenance"] = {"auricle" if key == "earshot" else key: value for key, value in made_by.items()}
    if "llm" in parts:
        parts["llm"] = parts["llm"] | {"chats": found.get("name") not in _OLD_DEMOS}
    return found | parts | {"schema_version": SCHEMA_VERSION}
