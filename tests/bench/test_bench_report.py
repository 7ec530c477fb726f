"""The report: what is on the page, how it is written, and what a real browser makes of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from auricle.bench.__main__ import main
from auricle.bench.report import page as report
from auricle.bench.report.comparison import compare
from auricle.bench.report.numbers import number, quantity
from auricle.bench.result import SYNTHETIC, Measure, Record, Subject, to_line
from auricle.models.errors import InputError, RunError
from bench_records import BIG, around, fit, live, peers, quality, record, stages, sweep

pytest.importorskip("matplotlib", reason="the report's charts need matplotlib")
from auricle.bench.report.charts import _hearing, charts  # pyright: ignore[reportPrivateUsage]
from auricle.bench.report.plots import BLUE, GREY, ORANGE, SKY, draw

WALLS = {"log_mel": 0.021, "fbank": 0.034, "whisper": 4.9, "beats": 1.31, "qformer": 0.022, "hear": 5.7}
RECORDS = (stages, live, quality, peers, fit, sweep)
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
in_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One page of all kinds of records. Read-only."""
    return report.write([make() for make in RECORDS], tmp_path_factory.mktemp("report"))


def titles(made: Record) -> list[str]:
    return [chart.title for chart in charts(made)]


class Tags(HTMLParser):
    """Counts elements and keeps the words outside of charts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.count[tag] += 1
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.count[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if "svg" not in self.open and "style" not in self.open:
            self.words.append(data)


# what is on the page


def test_each_record_gets_the_charts_it_is_worth() -> None:
    assert titles(stages())[:3] == [
        "One answer, from audio to the last word",
        "One live update",
        "How close to the machine's limit",
    ]
    assert {"Where the time of one update goes", "Spread of update: latency"} <= set(titles(live()))
    assert {"Word error rate against size", "KL divergence from the reference against size"} <= set(titles(quality()))
    assert titles(peers())[0] == "Auricle ÷ other: wall time"
    assert titles(fit()) == ["Speed", "Time to first token"]
    assert titles(sweep()) == [
        "Word error rate against the LoRA's scale",
        "Length of an answer against the LoRA's scale",
    ]


def test_bundles_that_differ_in_their_encoders_are_drawn_by_those() -> None:
    found: list[Measure] = []
    subjects: list[Subject] = []
    for at, encoders in enumerate(("fp32", "int8", "int4")):
        subjects.append(Subject(encoders, "salmonn", False, encoders, "q8_0", 0.01))
        values = {"size": 0.01, "encoders_size": 14.0 - at, "encoders": 30.0 + at, "wer": 1.3, "error_audio_tokens": at}
        found += [Measure(encoders, name, "", (value,), "lower") for name, value in values.items()]
    made = titles(record("quality", subjects, {"clips": "9"}, found))
    assert made[:2] == [f"Word error rate against {cost} of the encoders" for cost in ("size", "time")]
    assert made[2:] == [f"Error of the audio tokens against {cost} of the encoders" for cost in ("size", "time")]


def test_a_waterfall_has_the_stages_that_the_record_holds() -> None:
    """Front ends first, an encoder behind each, whatever they are called; on a GPU two encoders side by side."""
    rows, done, said = _hearing(stages(), WALLS)
    names = [label for label, *_ in rows]
    assert names == ["log-mel", "Whisper encoder", "filter bank", "BEATs encoder", "Q-Former"]
    assert [start for _, _, start, _ in rows] == pytest.approx([0.0, 0.021, 4.921, 4.955, 6.265])
    assert done == pytest.approx(6.287) and not said
    found = [(name, 0.0 if name == "waves" else 1.0) for name in ("waves", "octopus", "hear", "prefill")]
    other = record("stages", [], {}, [Measure(name, "bytes", "B", (size,)) for name, size in found])
    rows, done, _ = _hearing(other, {name: 1.0 for name, _ in found})
    assert [(label, start) for label, _, start, _ in rows] == [("waves", 0.0), ("octopus", 1.0)] and done == 2.0
    on_gpu = replace(stages(), machine=replace(stages().machine, gpu="a GPU"))
    rows, done, said = _hearing(on_gpu, WALLS)
    assert ("encoders side by side", GREY, 0.0, pytest.approx(5.678)) in rows and done == pytest.approx(5.7) and said


def test_charts_stay_few() -> None:
    many = [Measure(f"g{i}", f"m{i % 40}", f"u{i}", around(1.0, 50, i), "lower") for i in range(200)]
    assert 0 < len(charts(record("odd", [], {}, many))) <= 8
    assert charts(record("odd", [], {}, [])) == []


def test_a_page_has_every_measure_and_every_setting(everything: Path) -> None:
    page = Tags(everything.read_text(encoding="utf-8"))
    words = " ".join(page.words)
    for made in (make() for make in RECORDS):
        for measure in made.measures:
            assert measure.group in words and measure.name in words
        for name, value in made.settings.items():
            assert name in words and value in words
        assert all(note in words for note in made.notes)
    assert page.open == [] and page.count["svg"] == sum(len(charts(make())) for make in RECORDS)
    assert number(stages().measures[0].value) in words and "AMD EPYC 9654" in words


def test_random_weights_are_announced_above_the_numbers(everything: Path, tmp_path: Path) -> None:
    text = everything.read_text(encoding="utf-8")
    assert 0 < text.index(f'role="note">{BIG.name}: {SYNTHETIC}') < text.index('class="tiles"')
    assert SYNTHETIC not in report.write([live()], tmp_path).read_text(encoding="utf-8")


def test_nothing_comes_from_elsewhere(everything: Path) -> None:
    """Not even the address of a namespace."""
    text = everything.read_text(encoding="utf-8")
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert not re.search(r"<(script|img|iframe|object|embed)\b", text)
    linked = set(re.findall(r'href="([^"#]+)"', text)) - {"data:,"}
    assert linked == {path.name for path in everything.parent.glob("*.png")}


def test_ids_are_unique_and_references_are_met(everything: Path) -> None:
    text = everything.read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)


def test_what_a_record_says_is_text_and_never_markup(tmp_path: Path) -> None:
    evil = record(
        EVIL,
        [replace(BIG, name=EVIL, llm="$\\frac{1}{0}$ & <b>")],
        {EVIL: EVIL},
        [Measure(f"{EVIL}{i}", EVIL, EVIL, (float(i), 2.0), "lower") for i in range(3)],
        [EVIL],
    )
    evil = replace(evil, created=EVIL, machine=replace(evil.machine, cpu=EVIL, gpu=EVIL, packages={EVIL: EVIL}))
    written = report.write([evil, evil], tmp_path, compare(evil, replace(evil, settings={})))
    page = Tags(written.read_text(encoding="utf-8"))
    assert page.count["script"] == 0 and page.count["b"] == written.read_text("utf-8").count('class="tile"') > 0
    assert " ".join(page.words).count(EVIL) > 20
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))


def test_odd_numbers_do_not_break_a_page(tmp_path: Path) -> None:
    odd = [
        Measure("a", "none", "s", ()),
        Measure("a", "broken", "s", (float("nan"), float("inf")), "lower"),
        Measure("a", "zero", "s", (0.0,) * 50, "lower"),
        Measure("a", "huge", "B", (3e15,), "lower"),
        Measure("\u4e2d\u6587" * 60, "tiny", "s", (1e-12, -1e-12), "lower"),
        Measure("b", "share", "%", (0.0,), "higher"),
        Measure("whisper", "wall", "s", (0.0,), "lower"),
        Measure("beats", "wall", "s", (0.0,), "lower"),
    ]
    text = report.write([record("odd", [], {"new tokens": "many", "hop": "?"}, odd)], tmp_path).read_text("utf-8")
    assert "3,000 TB" in text and "nan" not in " ".join(Tags(text).words)


def test_a_comparison_stands_on_top(tmp_path: Path) -> None:
    before, after = stages(), stages(slower=1.3, seed=50)
    text = report.write([after, before], tmp_path, compare(before, after)).read_text(encoding="utf-8")
    assert text.index("Before and after") < text.index('<article id="r1">')
    assert '<td class="bad">slower</td>' in text


def test_pictures_are_the_same_every_time() -> None:
    chart = charts(quality())[0]
    assert draw(chart, 3) == draw(chart, 3)


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (4.90, "%", "4.9 %"),
        (1234.5, "ms", "1,234 ms"),
        (0.01234, "", "0.0123"),
        (1.94e12, "FLOP", "1.94 TFLOP"),
        (88.0, "", "88"),
        (1.2e-5, "s", "1.20e-05 s"),
        (float("inf"), "s", "- s"),
    ],
)
def test_numbers_are_readable(value: float, unit: str, said: str) -> None:
    assert quantity(value, unit) == said


# how it is written


def test_a_report_replaces_its_own_files_only(tmp_path: Path) -> None:
    (tmp_path / "mine.png").write_bytes(b"precious")
    report.write([stages(), peers()], tmp_path)
    first = {path.name for path in tmp_path.iterdir()}
    report.write([fit()], tmp_path)
    second = {path.name for path in tmp_path.iterdir()}
    assert second == {"index.html", "mine.png", "1-1-speed.png", "1-2-time-to-first-token.png"} and len(first) > 8
    assert (tmp_path / "mine.png").read_bytes() == b"precious"


def test_a_page_of_somebody_else_is_kept(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my thesis", encoding="utf-8")
    with pytest.raises(InputError, match="not a report"):
        report.write([fit()], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_a_file_in_the_way_and_nothing_to_report(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        report.write([fit()], tmp_path / "file")
    for refuse in (report.require_writable, lambda path: report.write([fit()], path)):
        with pytest.raises(InputError, match="cannot be written"):
            refuse(tmp_path / "file" / "below")
    with pytest.raises(InputError, match="at least one"):
        report.write([], tmp_path)


def test_a_full_disk_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = report.write([fit()], tmp_path)
    before, names = index.read_text(encoding="utf-8"), {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match="No space left"):
        report.write([fit(), fit()], tmp_path)
    assert index.read_text(encoding="utf-8") == before and {path.name for path in tmp_path.iterdir()} == names


def test_without_matplotlib_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install '.\[bench\]'"):
        report.write([fit()], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("table\n" + to_line(fit()) + "\n", encoding="utf-8")
    assert report.run(Namespace(files=[tmp_path / "a"], out=tmp_path / "out" / "deep")) == 0
    assert Path(capsys.readouterr().out.strip()) == tmp_path / "out" / "deep" / "index.html"


def test_a_report_that_cannot_be_written_costs_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_replace", full)
    monkeypatch.setattr("auricle.bench.speed.fit.run", lambda *_: fit())
    monkeypatch.setattr("auricle.bench.speed.fit.lines", lambda _: ["a table"])
    assert main(["fit", "--model", "demo", "--memory", "8GB", "--report", str(tmp_path / "out")]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == to_line(fit()) and "the report cannot be written" in shown.err


# what a browser makes of it


def browse(page: Path, profile: Path, width: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Twice when it hangs, which it does once in a while on a machine that is too busy."""
    assert BROWSER is not None
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--hide-scrollbars")
    common = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr")
    command = [BROWSER, *common, *quiet, f"--user-data-dir={profile}", f"--window-size={width},900", *options]
    try:
        found = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        command = [f"{word}-again" if word.startswith("--user-data-dir") else word for word in command]
        found = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    return found


def complaints(found: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in found.stderr.splitlines() if "CONSOLE" in line]


@in_browser
def test_browser_has_nothing_to_complain_about(everything: Path, tmp_path: Path) -> None:
    found = browse(everything, tmp_path / "profile", 1280, "--dump-dom")
    assert complaints(found) == []
    page = Tags(found.stdout)
    assert page.count["svg"] == page.count["figure"] == sum(len(charts(make())) for make in RECORDS)
    assert page.count["table"] >= len(RECORDS) and page.count["tr"] > 50
    assert page.count["script"] == 0
    spoilt = tmp_path / "spoilt.html"
    text = everything.read_text(encoding="utf-8").replace("<main>", '<main><img src="http://127.0.0.1:9/x.png">')
    spoilt.write_text(text, encoding="utf-8")
    assert complaints(browse(spoilt, tmp_path / "profile", 1280, "--dump-dom")), "a request would be noticed"


MEASURE = """<script>
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect(), boxes = [];
  const title = svg.parentElement.querySelector("h3").textContent;
  if (frame.width < 200 || frame.height < 80) found.push(title + ": too small");
  for (const text of svg.querySelectorAll('g[id*="-text_"]')) {
    const box = text.getBoundingClientRect();
    if (box.width === 0) continue;
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
        || box.bottom > frame.bottom + 1) found.push(title + ": " + text.id + " is cut off");
    for (const other of boxes)
      if (Math.min(box.right, other.right) - Math.max(box.left, other.left) > 1
          && Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) > 1)
        found.push(title + ": " + text.id + " covers another text");
    boxes.push(box);
  }
  if (boxes.length < 4) found.push(title + ": has no text");
}
const root = document.documentElement;
if (root.scrollWidth > root.clientWidth) found.push("page is " + root.scrollWidth + " wide of " + root.clientWidth);
document.body.innerHTML = "<pre></pre>";
document.querySelector("pre").textContent = JSON.stringify(found);
</script></body>"""


def layout_faults(page: Path, folder: Path, width: int) -> Sequence[str]:
    """What a script in the page measures: texts of charts that are cut off or overlap, a page that is too wide."""
    text = page.read_text(encoding="utf-8").replace("</body>", MEASURE)
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    probe = folder / "probe.html"
    probe.write_text(text, encoding="utf-8")
    answer = re.search("<pre>(.*)</pre>", browse(probe, folder / "profile", width, "--dump-dom").stdout, re.DOTALL)
    assert answer is not None
    return json.loads(answer[1])


@in_browser
@pytest.mark.parametrize("width", [500, 1280])
def test_no_label_is_cut_off_or_covered(everything: Path, tmp_path: Path, width: int) -> None:
    assert layout_faults(everything, tmp_path, width) == []


@in_browser
@pytest.mark.parametrize("dark", [False, True])
def test_charts_are_seen(everything: Path, tmp_path: Path, dark: bool) -> None:
    from matplotlib.image import imread

    shot = tmp_path / "shot.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(everything, tmp_path / "profile", 1280, f"--screenshot={shot}", "--window-size=1280,9000", *scheme)
    pixels = (imread(shot)[:, :, :3] * 255).round().astype(int)
    assert pixels.shape == (9000, 1280, 3)
    ground = pixels[4, 4]
    assert (ground.max() < 64) if dark else (ground.min() > 230)
    for color in (BLUE, ORANGE, SKY):
        wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        rows, columns = np.nonzero(np.abs(pixels - wanted).max(axis=2) <= 2)
        assert len(rows) > 5000, f"{color} is not to be seen"
        around_it = pixels[rows.min() - 4 : rows.min() + 120, columns.min() - 4 : columns.max() + 60].reshape(-1, 3)
        colors, counts = np.unique(around_it, axis=0, return_counts=True)
        assert (counts > 40).sum() >= 3 and len(colors) > 20, "a chart is more than one flat area"
