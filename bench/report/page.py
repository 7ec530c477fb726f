"""Page: records -> one HTML file that needs nothing else: no script, no font, charts inside it.

write([record], directory) -> directory/index.html, and every chart as a PNG beside it
"""

from __future__ import annotations

import argparse
import html
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from ...models.errors import InputError, RunError, missing_package
from ..result import SYNTHETIC, Record, read_record
from . import tables
from .charts import charts
from .comparison import Comparison, summary
from .plots import Picture, draw

INDEX = "index.html"
MARK = '<meta name="generator" content="auricle-bench">'
"""By which a page of ours is known, to be replaced."""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_OWN_PNG = re.compile(r'href="(\d+-\d+-[a-z0-9-]+\.png)"')
_STYLE = """
:root { color-scheme: light dark; --page: #f3f5f7; --card: #ffffff; --ink: #1f2328; --faint: #57606a;
  --grid: #d5dae0; --warn: #fff3c4; --warn-ink: #5c4400; --good: #00694d; --bad: #a83c00 }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1d2127; --ink: #e8ebee; --faint: #a5adb6;
  --grid: #3b424b; --warn: #4a3a08; --warn-ink: #ffe9a8; --good: #4fd0a5; --bad: #ff9a5c } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere }
main { max-width: 76rem; margin: 0 auto; padding: 1.25rem 1rem 3rem }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 0 } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
h1 + p, figcaption, caption, .tile span, .tile small { color: var(--faint) } h1 + p { margin: .2rem 0 1rem }
nav ul { padding-left: 1.2rem } a { color: inherit }
article + article { margin-top: 3rem; padding-top: 2rem; border-top: 2px solid var(--grid) }
.banner { background: var(--warn); color: var(--warn-ink); border-left: 6px solid #e69f00; padding: .75rem 1rem;
  margin: 1rem 0; font-weight: 600; border-radius: 4px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem }
.tile, figure, .scroll, dl { background: var(--card); border: 1px solid var(--grid); border-radius: 8px }
.tile { padding: .7rem .9rem; display: flex; flex-direction: column } .tile b { font-size: 1.55rem; line-height: 1.2 }
.tile b small { font-size: .95rem; font-weight: 400; color: inherit } .tile span, .tile small { font-size: .85rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem }
figure { margin: 0; padding: 1rem; display: flex; flex-direction: column } figure svg { width: 100%; height: auto }
figure h3 { margin: 0 0 .5rem; font-size: 1rem } figcaption { font-size: .85rem; margin-top: auto; padding-top: .5rem }
figure svg { max-width: 44rem } .scroll { overflow-x: auto; margin: 0 0 1rem } caption { text-align: left;
  font-size: .85rem; padding: .5rem .75rem 0 }
table { border-collapse: collapse; width: 100%; font-size: .9rem; overflow-wrap: normal }
th, td { padding: .35rem .75rem; text-align: left; vertical-align: top; border-top: 1px solid var(--grid) }
thead th { border-top: 0; color: var(--faint); font-weight: 600; white-space: normal } tbody th { font-weight: 600 }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } td small { display: block;
  color: var(--faint) } td.good { color: var(--good) } td.bad { color: var(--bad); font-weight: 700 }
td.odd { font-style: italic }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; margin: 0 0 1rem;
  padding: .6rem .9rem; gap: .2rem 1.2rem; font-size: .9rem } dt { color: var(--faint) } dd { margin: 0 } dl:empty {
  display: none }
"""


def write(records: Sequence[Record], directory: Path, comparison: Comparison | None = None) -> Path:
    """Writes index.html and the PNGs; what else lies in the directory stays. Raises InputError, RunError."""
    if not records:
        raise InputError("a report of no record would be empty: give at least one")
    require_writable(directory)
    drawn = [[draw(chart, 100 * i + j) for j, chart in enumerate(charts(record))] for i, record in enumerate(records)]
    pictures = {
        f"{i + 1}-{j + 1}-{_slug(picture.title)}.png": picture
        for i, row in enumerate(drawn)
        for j, picture in enumerate(row)
    }
    index = directory / INDEX
    old = _old_pictures(index)
    text = page(records, pictures, comparison)
    try:
        for name, picture in pictures.items():
            _replace(directory / name, picture.png)
        _replace(index, text.encode())
        for name in old - pictures.keys():
            (directory / name).unlink(missing_ok=True)
    except OSError as error:
        message = (
            f"the report cannot be written to {directory} ({error.strerror}): give a directory that can be written"
        )
        raise RunError(message) from None
    return index


def require_writable(directory: Path) -> None:
    """Before anything is measured: makes the directory. Raises InputError when no report could be written or drawn."""
    if find_spec("matplotlib") is None:
        raise missing_package(ModuleNotFoundError("no matplotlib", name="matplotlib"), "bench")
    if os.path.isfile(directory):
        raise InputError(f"{directory} is a file: give the directory that the report shall be written to")
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InputError(f"the report cannot be written to {directory}: give a directory that can be written")
    _old_pictures(directory / INDEX)


def page(records: Sequence[Record], pictures: Mapping[str, Picture], comparison: Comparison | None = None) -> str:
    """The whole page; `pictures` are charts by their file's name, which starts with the number of their record."""
    title = "auricle-bench: " + ", ".join(dict.fromkeys(record.command for record in records))
    head = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{MARK}'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body><main>"
    )
    body: list[str] = []
    if comparison:
        verdict = html.escape(summary(comparison))
        title = " and ".join(comparison.sides).capitalize()
        body.append(f"<article><h1>{title}</h1><p>{verdict}</p>{tables.comparison(comparison)}</article>")
    if len(records) > 1:
        links = (f'<li><a href="#r{i + 1}">{html.escape(_title(record))}</a></li>' for i, record in enumerate(records))
        body.append(f"<nav><ul>{''.join(links)}</ul></nav>")
    for i, record in enumerate(records):
        own = {name: picture for name, picture in pictures.items() if name.startswith(f"{i + 1}-")}
        body.append(_article(record, own, i + 1))
    return head + "\n".join(body) + "</main></body></html>\n"


def run(arguments: argparse.Namespace) -> int:
    """`report FILE... --out DIR`."""
    print(write([read_record(path) for path in arguments.files], arguments.out))
    return 0


def _article(record: Record, pictures: Mapping[str, Picture], n: int) -> str:
    names = _names(record)
    synthetic = [s.name for s in record.subjects if s.synthetic]
    banner = f'<p class="banner" role="note">{html.escape(", ".join(synthetic))}: {SYNTHETIC}</p>' if synthetic else ""
    notes = [note for note in record.notes if not note.endswith(SYNTHETIC)]
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    figures = "".join(_figure(name, picture) for name, picture in pictures.items())
    return (
        f'<article id="r{n}"><h1>{html.escape(record.command)}{": " if names else ""}{html.escape(names)}</h1>'
        f"<p>{html.escape(_date(record))}</p>{banner}{tables.tiles(record)}"
        + (f'<h2>Charts</h2><div class="charts">{figures}</div>' if figures else "")
        + (f"<h2>To know beside the numbers</h2><ul>{listed}</ul>" if listed else "")
        + f"<h2>All measures</h2>{tables.measures(record)}<h2>Where and how</h2>{tables.machine(record)}</article>"
    )


def _figure(name: str, picture: Picture) -> str:
    title = html.escape(picture.title)
    caption = html.escape(picture.caption)
    svg = picture.svg.replace("<svg", f'<svg role="img" aria-label="{title}. {caption}"', 1)
    link = f'<a href="{html.escape(name)}">PNG</a>'
    return f"<figure><h3>{title}</h3>{svg}<figcaption>{caption} {link}</figcaption></figure>"


def _title(record: Record) -> str:
    return ", ".join(part for part in (record.command, _names(record), _date(record)) if part)


def _names(record: Record) -> str:
    names = list(dict.fromkeys(s.name for s in record.subjects))
    if not names:
        return record.settings.get("part") or record.settings.get("model", "")
    return ", ".join(names) if len(names) < 4 else f"{len(names)} bundles"


def _date(record: Record) -> str:
    with suppress(ValueError):
        return datetime.fromisoformat(record.created).strftime("%Y-%m-%d %H:%M UTC")
    return record.created


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].rstrip("-") or "chart"


def _old_pictures(index: Path) -> set[str]:
    """Of the report that is about to be replaced. Raises InputError when the page there is not one."""
    try:
        text = index.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError):
        text = ""
    if MARK not in text:
        raise InputError(f"{index} is not a report of auricle-bench and would be lost: give another directory")
    return set(_OWN_PNG.findall(text))


def _replace(path: Path, content: bytes) -> None:
    """All of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
