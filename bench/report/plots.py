"""Plots: charts -> SVG that follows the page's colours, and PNG, by matplotlib without a display.

    draw(waterfall(...)) -> Picture      a `Chart` is a description, drawing comes last

Text becomes outlines, so a chart looks the same wherever it is opened; nothing in it is read as mathematics or markup.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.errors import InputError, missing_package
from .numbers import number, quantity

INK, FAINT, GRID, PAPER = "#1f2328", "#57606a", "#d5dae0", "#fffffe"
BLUE, ORANGE, GREEN, SKY, GREY = "#0072b2", "#d55e00", "#009e73", "#56b4e9", "#8c959f"
"""Okabe and Ito's colours: told apart by colour-blind eyes, on white and on black."""
VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", GRID: "var(--grid)", PAPER: "var(--card)"}
"""What takes the page's colours in an SVG."""
WIDTH, ROW = 6.4, 0.36
"""Inches: of a chart, and of a row of bars."""
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": "cycler('color', ['#0072b2'])",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "svg.fonttype": "path",
    "svg.hashsalt": "auricle",
}

Axes = Any  # matplotlib is typed in part only
Paint = Callable[[Axes], None]


@dataclass(frozen=True)
class Chart:
    """What is to be drawn."""

    title: str
    caption: str
    """A sentence that says how to read it."""
    height: float
    """Inches."""
    paint: Paint


@dataclass(frozen=True)
class Picture:
    """A drawn chart."""

    title: str
    caption: str
    svg: str
    """An <svg> element, without ids of its own that could meet those of another chart."""
    png: bytes


@dataclass(frozen=True)
class Bar:
    """One row: from `start` to `start + length`."""

    label: str
    length: float
    start: float = 0.0
    color: str = BLUE
    low: float | None = None
    high: float | None = None
    """The spread of the bar's end."""
    note: str = ""
    """Stands after the bar's end instead of its length."""


@dataclass(frozen=True)
class Point:
    """A labelled point."""

    label: str
    x: float
    y: float
    spread: tuple[float, float] | None = None
    """An interval of y."""


@dataclass(frozen=True)
class Curve:
    """A line through points."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def require_place(path: Path | None) -> None:
    """Before the work whose picture is to be written there. Raises InputError where that cannot be."""
    if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK)):
        raise InputError(f"{path} cannot be written: give a file in a directory that is there")


def draw(chart: Chart, number_on_page: int) -> Picture:
    """Both forms of a chart. Raises InputError when matplotlib is not installed."""
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise missing_package(error, "bench") from None

    library: Any = matplotlib
    with library.rc_context(_STYLE), _quiet():
        figure: Any = Figure(figsize=(WIDTH, chart.height), layout="constrained")
        FigureCanvasAgg(figure)
        axes: Axes = figure.add_subplot()
        chart.paint(axes)
        svg = io.BytesIO()
        png = io.BytesIO()
        nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
        figure.savefig(svg, format="svg", transparent=True, metadata=nothing)
        figure.savefig(png, format="png", dpi=150, facecolor="white")
    return Picture(chart.title, chart.caption, _inline(svg.getvalue().decode(), f"c{number_on_page}-"), png.getvalue())


def bars(title: str, caption: str, rows: Sequence[Bar], axis: str, mark: tuple[float, str] | None = None) -> Chart:
    """Horizontal bars from top to bottom, what they come to written after them; `mark` is a line to compare with."""
    labels = [short(row.label, 30) for row in rows]

    def paint(axes: Axes) -> None:
        places = range(len(rows))
        axes.barh(
            places,
            [row.length for row in rows],
            left=[row.start for row in rows],
            color=[row.color for row in rows],
            edgecolor=[row.color for row in rows],  # so that the shortest can be seen
            linewidth=1,
            height=0.62,
        )
        ends = [row.start + row.length for row in rows]
        reach = max([*ends, *(row.high or 0 for row in rows), mark[0] if mark else 0])
        for place, row, end in zip(places, rows, ends, strict=True):
            if row.low is not None and row.high is not None and row.high > row.low:
                axes.plot([row.low, row.high], [place, place], color=INK, linewidth=1.2)
                end = max(end, row.high)
            label = row.note or number(row.length)
            box = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}  # covers what lies behind the words
            axes.annotate(label, (end, place), (5, 0), textcoords="offset points", va="center", fontsize=9, bbox=box)
        axes.set_yticks(list(places), labels, color=INK)
        axes.invert_yaxis()
        longest = max(len(row.note or number(row.length)) for row in rows)
        axes.set_xlim(0, (reach or 1) * (1 + 0.022 * longest + 0.04))
        axes.set_xlabel(axis)
        axes.grid(axis="x")
        if mark:
            axes.axvline(mark[0], color=INK, linewidth=1.4, linestyle="--", label=mark[1])
            _legend(axes)

    return Chart(title, caption, 0.9 + ROW * len(rows) + (0.3 if mark else 0), paint)


def histogram(
    title: str, caption: str, samples: Sequence[float], axis: str, marks: Sequence[tuple[str, float, str, str]]
) -> Chart:
    """How often each value came; `marks` are lines: what they are, where, colour, dash."""

    def paint(axes: Axes) -> None:
        n_bins = min(60, max(10, int(2 * len(samples) ** 0.5)))
        axes.hist(samples, bins=n_bins, color=SKY, edgecolor=PAPER, linewidth=0.6)
        for label, place, color, dash in marks:
            axes.axvline(place, color=color, linestyle=dash, linewidth=1.8, label=label)
        reach = max([*samples, *(place for _, place, _, _ in marks)])
        low = min(samples)
        left = 0.0 if 0 <= low < 0.5 * reach else low - 0.06 * (reach - low)
        axes.set_xlim(left, (reach + 0.04 * (reach - left)) or 1)
        axes.set_xlabel(axis)
        axes.set_ylabel(f"of {len(samples)}, how many")
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        _legend(axes)

    return Chart(title, caption, 3.5, paint)


def scatter(title: str, caption: str, points: Sequence[Point], x_axis: str, y_axis: str, joined: bool = False) -> Chart:
    """Labelled points, a line through them where they are joined; the y axis is logarithmic when the values above 0
    span more than a factor of 30."""

    def paint(axes: Axes) -> None:
        for point in points:
            if point.spread:
                axes.plot([point.x, point.x], point.spread, color=GREY, linewidth=1.2)
        if joined:
            axes.plot([p.x for p in points], [p.y for p in points], color=SKY, linewidth=1.6)
        axes.scatter([p.x for p in points], [p.y for p in points], s=46, color=BLUE, edgecolor=PAPER, zorder=3)
        axes.margins(x=0.16, y=0.16)
        _scale_x(axes, points)
        _scale_y(axes, points, linear=y_axis.endswith("%"))
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        axes.grid()
        _label_points(axes, points)

    return Chart(title, caption, 3.9, paint)


def curves(title: str, caption: str, lines: Sequence[Curve], x_axis: str, y_axis: str) -> Chart:
    """Lines in steps, each of its colour, with a legend."""

    def paint(axes: Axes) -> None:
        for line, color in zip(lines, (BLUE, ORANGE, GREEN, SKY, GREY), strict=False):
            axes.plot(line.x, line.y, color=color, linewidth=1.8, drawstyle="steps-post", label=line.label)
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        axes.grid()
        _legend(axes)

    return Chart(title, caption, 3.9, paint)


def short(text: str, n: int) -> str:
    """At most n letters on one line."""
    text = " ".join(text.split())
    return text if len(text) <= n else text[: n - 1].rstrip() + "…"


def in_unit(value: float, unit: str) -> str:
    """A time below a second in milliseconds, everything else as it is."""
    return quantity(value * 1e3, "ms") if unit == "s" and abs(value) < 1 else quantity(value, unit)


def _scale_y(axes: Axes, points: Sequence[Point], linear: bool) -> None:
    positive = [p.y for p in points if p.y > 0]
    if not linear and positive and max(positive) > 30 * min(positive):
        axes.set_yscale("symlog", linthresh=min(positive), linscale=0.5)
        axes.yaxis.set_major_formatter(_tick)
        axes.set_ylim(-0.25 * min(positive) if min(p.y for p in points) <= 0 else min(positive) / 2, max(positive) * 3)
    elif min(p.y for p in points) >= 0:
        top = max([p.y for p in points] + [p.spread[1] for p in points if p.spread]) or 1
        axes.set_ylim(-0.06 * top, top * 1.16)


def _scale_x(axes: Axes, points: Sequence[Point]) -> None:
    low = min(p.x for p in points)
    high = max(p.x for p in points)
    if low > 0 and high > 4 * low:
        from matplotlib.ticker import LogLocator, NullLocator

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(_tick)
    elif low > 0:
        axes.set_xlim(left=max(0, axes.get_xlim()[0]))


def _tick(value: float, _: int | None) -> str:
    return f"{value:g}"


def _label_points(axes: Axes, points: Sequence[Point]) -> None:
    """Each label where it covers neither a point nor a label, and stays inside; the first place that does."""
    figure = axes.figure
    figure.draw_without_rendering()  # the layout settles, then extents are those of the picture
    renderer = figure.canvas.get_renderer()
    frame = axes.get_window_extent()
    at = [axes.transData.transform((p.x, p.y)) for p in points]
    taken: list[tuple[float, float, float, float]] = [(x - 6, y - 6, x + 6, y + 6) for x, y in at]
    for point in points:
        if point.spread:
            (x, low), (_, high) = (axes.transData.transform((point.x, y)) for y in point.spread)
            taken.append((x - 2, low, x + 2, high))
    for point in (point for point in points if point.label):
        label = axes.annotate(short(point.label, 24), (point.x, point.y), fontsize=9)
        best: tuple[float, Any, Any] | None = None
        for x, y, side in _PLACES:
            label.set(position=(x, y), anncoords="offset points", ha=side, va="center")
            box = label.get_window_extent(renderer).extents
            inside = box[0] >= frame.x0 and box[2] <= frame.x1 and box[1] >= frame.y0 and box[3] <= frame.y1
            cost = sum(_overlap(box, other) for other in taken) + (0 if inside else 1e4)
            if best is None or cost < best[0]:
                best = (cost, (x, y, side), tuple(box))
        assert best is not None
        label.remove()
        x, y, side = best[1]
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            *(short(point.label, 24), (point.x, point.y), (x, y)),
            textcoords="offset points",
            ha=side,
            va="center",
            fontsize=9,
            arrowprops=line if abs(x) + abs(y) > 16 else None,  # far from its point: a line between them
        )
        taken.append(best[2])


_PLACES = [
    (x * reach, y, side)
    for reach in (1, 2.4)
    for x, y, side in (
        *((8, 0, "left"), (-8, 0, "right"), (0, 12, "center"), (0, -12, "center")),
        *((7, 10, "left"), (7, -10, "left"), (-7, 10, "right"), (-7, -10, "right")),
        *((4, 22, "left"), (4, -22, "left"), (-4, 22, "right"), (-4, -22, "right")),
    )
]


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.3}
    axes.legend(ncols=4, frameon=False, fontsize=9, handlelength=1.6, columnspacing=1.4, **place)


@contextmanager
def _quiet() -> Generator[None]:
    """A letter that the font lacks is drawn as a box; nobody needs to hear of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _inline(svg: str, prefix: str) -> str:
    """From a file to an element of a page: nothing before <svg>, no namespaces, its own ids, the page's colours."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    svg = re.sub(r'(<svg[^>]*?) width="[\d.]+pt"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[\d.]+pt"', r"\1", svg, count=1)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg
