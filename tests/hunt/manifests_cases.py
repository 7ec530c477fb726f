"""Spoiled manifests: one thing in the JSON of the golden bundle is another, or bits of the text are; the files stay."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

from auricle.models.bundle import MANIFEST
from auricle.runtime.bundle import open_bundle, verify_hashes
from auricle.runtime.engine import Engine, EngineOptions
from hunting import ROOT, Case

BUNDLE = ROOT / "build" / "golden-bundle"
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1e308, 1 << 31, 1 << 63, 10**400, float("nan"), float("inf"), "", " ", "x"),
    *("../x", "/etc/passwd", "a\\b", "a\0b", "\ud800", "{}", "{prompt}", "a\nb", "é" * 300, "x" * 5000, "."),
    *([], {}, [[]], [None], {"": 0}, [1] * 200, MANIFEST, "llm.gguf", "beats.onnx", "whisper", "0" * 64),
)


@cache
def _text() -> str:
    return (BUNDLE / MANIFEST).read_text(encoding="utf-8")


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of every value, but one in forty of the long lists of numbers."""
    members = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if len(members) > 40 and not isinstance(members[0][1], dict | list):
        members = members[::40]
    return [path, *(place for name, member in members for place in _places(member, (*path, name)))]


def make_case(seed: int, number: int) -> Case:
    """Values three times in four, text else."""
    rng = random.Random(f"manifest {seed} {number}")
    if rng.random() < 0.25:
        title, content = _text_spoiled(bytearray(_text().encode()), rng)
        return Case(title, content, ".json")
    document: Any = json.loads(_text())
    titles = [_spoil(document, rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
    return Case(
        "; ".join(titles), json.dumps(document, ensure_ascii=rng.random() < 0.8).encode(errors="surrogatepass"), ".json"
    )


def _spoil(document: Any, rng: random.Random) -> str:
    """Changes one value in place."""
    *path, last = rng.choice(_places(document)[1:])
    parent = document
    for name in path:
        parent = parent[name]
    where = "/".join(map(str, [*path, last]))
    what = rng.choice(("other", "other", "near", "gone", "twin", "elsewhere"))
    old = parent[last]
    if what == "gone":
        del parent[last]
    elif what == "twin" and isinstance(parent, dict):
        parent[f"{last}2"] = old
    elif what == "twin":
        parent.insert(last, old)
    elif what == "elsewhere":
        *there, name = rng.choice(_places(document)[1:])
        for step in there:
            document = document[step]
        parent[last] = json.loads(json.dumps(document[name]))
    elif what == "near" and isinstance(old, str):
        at = rng.randrange(len(old) + 1)
        parent[last] = old[:at] + rng.choice(("", "a", "{", "}", "/", "\0", "é")) + old[at + 1 :]
    elif what == "near" and isinstance(old, int | float) and not isinstance(old, bool):
        parent[last] = rng.choice((old + 1, old - 1, -old, old * 2, old * 1000, float(old), str(old)))
    else:
        parent[last] = rng.choice(VALUES)
    return f"{where} {what}"


def _text_spoiled(text: bytearray, rng: random.Random) -> tuple[str, bytes]:
    at = rng.randrange(len(text))
    what = rng.choice(("bits", "cut", "deep", "twice", "without", "bytes"))
    if what == "bits":
        for _ in range(rng.choice((1, 1, 8))):
            text[rng.randrange(len(text))] ^= 1 << rng.randrange(8)
    elif what == "cut":
        del text[at:]
    elif what == "deep":
        text[at:at] = rng.choice((b"[", b'{"a":')) * rng.choice((10, 1000, 200_000))
    elif what == "twice":
        text[at:at] = text[max(0, at - rng.choice((1, 30, 3000))) : at]
    elif what == "without":
        del text[at : at + rng.choice((1, 30, 3000))]
    else:
        text[at:at] = rng.choice(
            (b"\xff", b"\xef\xbb\xbf", b"\0", b"9" * 5000, b"1e999", b"NaN", b"\\ud800", b'"', b",")
        )
    return f"{what} at {at}", bytes(text)


def run_case(case: Case, folder: Path) -> str:
    """Opened, every byte of the files compared, and loaded."""
    bundle = folder / "bundle"
    if not bundle.exists():
        bundle.mkdir()
        for path in BUNDLE.iterdir():
            (bundle / path.name).symlink_to(path)
        (bundle / MANIFEST).unlink()
    (bundle / MANIFEST).write_bytes(case.content)
    opened = open_bundle(bundle)
    verify_hashes(opened)
    with Engine(opened, EngineOptions()):
        return opened.manifest.name
