"""How late live text is: the formulas on worked examples, files of word times, and a session as somebody sees it."""

from __future__ import annotations

import json
import random
import wave
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="the bench is not installed")
from auricle.bench.live import live
from auricle.bench.live import table as live_tables
from auricle.bench.live.latency import (
    Moment,
    Screen,
    ShownWord,
    SpokenWord,
    caption_errors,
    erased,
    laal,
    matched,
    normalized_erasure,
    read_words,
)
from auricle.bench.result import Record, read_record, to_line
from auricle.bench.word_errors import WordErrors
from auricle.models.audio import SAMPLE_RATE
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.engine import EngineOptions
from auricle.runtime.events import Caption, Timings, Work
from auricle.runtime.live.captions import LiveOptions
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.sources.source import Chunk
from auricle.runtime.system.ort import OrtOptions

CLIPS = shipped_bundle() / "clips"
NO_WORK = Work(0.0, 0.0, 0, 0, 0, 0, 0, 0)
SPOKEN = ("command.wav", "unseen-voice.wav")


def at(seconds: float) -> Moment:
    """Shown when so much had been heard, half a second later by the clock."""
    return Moment(seconds, seconds + 0.5)


# formulas


@pytest.mark.parametrize(
    ("before", "after", "n"),
    [("", "a b", 0), ("a b", "a b c", 0), ("a b c", "a x c", 2), ("a b", "", 2), ("a b c", "a b", 1), ("b", "a b", 1)],
)
def test_erasure_is_what_must_be_deleted_before_appending(before: str, after: str, n: int) -> None:
    assert erased(before.split(), after.split()) == n


def test_laal_of_an_ideal_writer_is_zero() -> None:
    """Four words in four seconds, each written the moment its even share begins."""
    assert laal([0.0, 1.0, 2.0, 3.0], 4.0, 4) == 0.0


@pytest.mark.parametrize(
    ("delays", "source", "n_reference", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], 4.0, 4, 1.0),  # always a word behind: (1 + (2-1) + (3-2) + (4-3)) / 4
        ([4.0, 4.0, 4.0, 4.0], 4.0, 4, 4.0),  # all at the end: only the first of them counts
        ([2.0, 4.0, 4.0], 4.0, 2, (2 + (4 - 4 / 3)) / 2),  # three words for two: the pace is that of three
        ([2.0, 4.0], 4.0, 4, (2 + (4 - 1)) / 2),  # two for four: that of the reference
        ([5.0, 6.0], 4.0, 2, 5.0),  # nothing before the end
    ],
)
def test_laal_is_as_worked_out(delays: list[float], source: float, n_reference: int, expected: float) -> None:
    assert laal(delays, source, n_reference) == pytest.approx(expected)


def test_laal_in_another_unit_is_the_same_time() -> None:
    rng = random.Random(1)
    for _ in range(100):
        delays = sorted(rng.uniform(0, 6) for _ in range(rng.randint(1, 8)))
        seconds = laal(delays, 5.0, 6)
        assert laal([1000 * delay for delay in delays], 5000.0, 6) == pytest.approx(1000 * seconds)


def test_words_are_dated_from_when_they_stay() -> None:
    """`b` flickers: it counts from its return. `a` is stable at 2 s, `b` at 4 s, `d` comes with the final text."""
    screen = Screen()
    screen.show([], ["a", "b"], at(1))
    screen.show(["a"], ["x"], at(2))
    screen.show(["a"], ["b", "c"], at(3))
    screen.show(["a", "b"], ["c"], at(4))
    shown = screen.finish(0.0, 5.0, ["a", "b", "d"], at(5))
    assert [word.unstable.heard_s for word in shown.words] == [1, 3, 5]
    assert [word.stable.heard_s for word in shown.words] == [2, 4, 5]
    assert [word.stable.wall_s for word in shown.words] == [2.5, 4.5, 5.5]
    assert shown.n_erased == 1 + 1 + 0 + 1
    assert normalized_erasure([shown]) == 1.0


def test_a_caption_is_compared_with_what_was_said_by_then() -> None:
    """Not with the segment before it, nor with the word that is just being said."""
    spoken = [SpokenWord(0.9, "before"), SpokenWord(1.5, "one"), SpokenWord(2.0, "two"), SpokenWord(2.9, "three")]
    captions = [
        Caption(1.0, 3.0, "One", "two", (), NO_WORK),
        Caption(1.0, 3.0, "one", "to three", (), NO_WORK),
        Caption(1.0, 1.2, "", "so", (), NO_WORK),
    ]
    assert caption_errors(captions, spoken) == WordErrors(0 + 2 + 1, 2 + 2 + 0)


def test_a_stable_word_that_the_final_revises_was_never_stable() -> None:
    screen = Screen()
    screen.show(["a", "b"], [], at(1))
    shown = screen.finish(0.0, 2.0, ["a", "c"], at(2))
    assert [word.stable.heard_s for word in shown.words] == [1, 2]
    assert Screen().finish(0.0, 1.0, [], at(1)).words == ()
    assert normalized_erasure([]) == 0.0


def test_words_are_matched_apart_from_case_and_punctuation() -> None:
    spoken = [SpokenWord(1.0, "Turn"), SpokenWord(2.0, "on,"), SpokenWord(3.0, "please")]
    shown = [ShownWord(word, at(4), at(5)) for word in ("turn", "-", "off", "Please.")]
    assert [(word.word, seen.word) for word, seen in matched(spoken, shown)] == [
        ("Turn", "turn"),
        ("please", "Please."),
    ]


# word times


def words_file(folder: Path, text: str) -> Path:
    path = folder / "words.tsv"
    path.write_bytes(text.encode())
    return path


def test_word_times_are_read(tmp_path: Path) -> None:
    path = words_file(tmp_path, "\ufeffend_s\tword\r\n0.5\tturn\r\n\r\n0.5\ton\n2\tplease\n")
    assert read_words(path, 2.0) == [SpokenWord(0.5, "turn"), SpokenWord(0.5, "on"), SpokenWord(2.0, "please")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.5 turn\n", "words.tsv:1 is '0.5 turn'"),
        ("0.5\tturn\tx\n", "words.tsv:1 is "),
        ("0.5\tturn on\n", "words.tsv:1 is "),
        ("0.5\tturn\nsoon\ton\n", "words.tsv:2 ends at 'soon'"),
        ("0.5\tturn\n0.4\ton\n", "words.tsv:2 ends at '0.4', but words end one after another between 0.5 s"),
        ("-1\tturn\n", "words.tsv:1 ends at '-1'"),
        ("nan\tturn\n", "words.tsv:1 ends at 'nan'"),
        ("2.1\tturn\n", "the end of the recording at 2.00 s"),
        ("end_s\tword\n", "holds no words"),
    ],
)
def test_bad_word_times_are_refused_with_their_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_words(words_file(tmp_path, text), 2.0)
    assert said in str(caught.value)


def test_a_file_of_words_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_words(tmp_path / "none.tsv", 1.0)
    (tmp_path / "words.tsv").write_bytes(b"\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_words(tmp_path / "words.tsv", 1.0)


# a session


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shipped sentences with pauses behind them, about 7 s, and times at which their words may end."""
    folder = tmp_path_factory.mktemp("talk")
    pause = np.zeros(SAMPLE_RATE, np.float32)
    rows = {c["file"]: c["expected"] for c in json.loads((CLIPS / "clips.json").read_text())}
    parts: list[np.ndarray] = []
    lines = ["end_s\tword"]
    for name in SPOKEN:
        start_s = sum(map(len, parts)) / SAMPLE_RATE
        clip = read_audio(CLIPS / name)
        words = rows[name].split()
        step = len(clip) / SAMPLE_RATE / len(words)
        lines += [f"{start_s + (n + 1) * step:.3f}\t{word}" for n, word in enumerate(words)]
        parts += [clip, pause]
    with wave.open(str(folder / "talk.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.concatenate(parts) * 32767).astype("<i2").tobytes())
    (folder / "words.tsv").write_text("\n".join(lines))
    return folder / "talk.wav"


@pytest.fixture(scope="module")
def fast(talk: Path) -> Record:
    ticks: list[int] = []
    record = live.measure(
        None, talk, talk.with_name("words.tsv"), LiveOptions(), "fast", None, lambda _, done, n: ticks.append(done)
    )
    assert ticks == sorted(ticks)
    return record


def samples(record: Record, group: str, name: str) -> Sequence[float]:
    found = record.find(group, name)
    assert found is not None, (group, name)
    return found.samples


def test_every_update_and_every_end_of_speech_is_a_sample(fast: Record) -> None:
    """Two sentences of 1.9 and 2.9 s, updated every half second."""
    n_updates = len(samples(fast, "update", "latency"))
    assert 6 <= n_updates <= 12
    for name in ("encoders", "llm", "passes", "tokens"):
        assert len(samples(fast, "update", name)) == n_updates, name
    for name in ("first_token", "final", "waited"):
        assert len(samples(fast, "speech_end", name)) == 2, name
    assert f"2 segments, {n_updates} updates" in live_tables.lines(fast)[1]


def test_parts_of_a_time_add_up(fast: Record) -> None:
    for whole, encoders, rest in zip(
        *(samples(fast, "update", name) for name in ("latency", "encoders", "llm")), strict=True
    ):
        assert whole == pytest.approx(encoders + rest)
        assert min(encoders, rest) > 0
    for waited, ttft, first, final in zip(
        *(samples(fast, "speech_end", name) for name in ("waited", "ttft", "first_token", "final")), strict=True
    ):
        assert first == pytest.approx(waited + ttft)
        assert final >= first > 0


def test_words_are_stable_after_they_were_shown(fast: Record) -> None:
    unstable, stable = samples(fast, "words", "heard_unstable"), samples(fast, "words", "heard_stable")
    assert len(unstable) == len(stable) >= 10
    assert all(late >= early for early, late in zip(unstable, stable, strict=True))
    assert samples(fast, "words", "wer")[0] < 40
    assert 0 < samples(fast, "words", "laal_unaware")[0] < 4


def test_what_a_clock_would_have_to_say_is_absent_in_a_hurry(fast: Record) -> None:
    for group, name in (("update", "backlog"), ("words", "lag_stable"), ("words", "laal")):
        assert fast.find(group, name) is None
    assert any("as fast as it is read" in note for note in fast.notes)


def test_the_draft_saves_passes_and_changes_no_word(fast: Record, talk: Path) -> None:
    options = LiveOptions(draft=False)
    plain = live.measure(None, talk, talk.with_name("words.tsv"), options, "fast")
    assert plain.find("update", "acceptance") is None
    assert samples(plain, "update", "tokens") == samples(fast, "update", "tokens")
    assert samples(plain, "update", "passes") == samples(plain, "update", "tokens"), (
        "a pass per token, the end included"
    )
    assert sum(samples(fast, "update", "passes")) < sum(samples(plain, "update", "passes"))
    assert 0 < samples(fast, "update", "acceptance")[0] <= 100
    for name in ("heard_stable", "wer", "laal_unaware"):
        assert samples(plain, "words", name) == samples(fast, "words", name)


def test_settled_audio_tokens_are_kept_and_counted(talk: Path, salm_bundle: Path) -> None:
    """Of a SALM, whose 12.5 tokens a second make it matter; what is not settled is read anew each time."""
    settled = live.measure(salm_bundle, talk, None, LiveOptions(hop_ms=1000, settle_s=0.5), "fast")
    kept, heard = samples(settled, "update", "kept"), samples(settled, "update", "audio_tokens")
    assert len(kept) == len(heard) and max(kept) > 0 and kept[0] == 0
    assert all(k <= n - 5 for k, n in zip(kept, heard, strict=True))  # half a second is six tokens
    assert settled.subjects[0].family == "salm" and settled.settings["settle_s"] == "0.5"
    assert any("kept (--settle)" in line for line in live.lines(settled))


def test_at_its_own_pace_nothing_is_read_before_it_is_spoken(tmp_path: Path) -> None:
    """The clock's lag is never less than the audio's, and every update works on what is there."""
    path = tmp_path / "words.tsv"
    path.write_text("0.6\tturn\n0.9\ton\n1.1\tthe\n1.3\tkitchen\n1.8\tdishwasher\n")
    record = live.measure(None, CLIPS / "command.wav", path, LiveOptions(hop_ms=300))
    assert min(samples(record, "update", "backlog")) >= 0
    for clock, audio in (("lag_unstable", "heard_unstable"), ("lag_stable", "heard_stable"), ("laal", "laal_unaware")):
        pairs = zip(samples(record, "words", clock), samples(record, "words", audio), strict=True)
        assert all(late > early for late, early in pairs), clock
    assert record.settings["hop_ms"] == "300"
    assert any("ends with the recording" in note for note in record.notes)


def test_a_stored_record_shows_the_same_table(fast: Record, tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    shown = live_tables.lines(fast)
    path.write_text("\n".join([*shown, to_line(fast)]))
    assert live_tables.lines(read_record(path)) == shown
    assert all(len(line) <= 120 for line in shown)
    assert any(line.startswith("end of speech to first token") for line in shown)


def test_without_word_times_nothing_is_said_of_words() -> None:
    record = live.measure(None, CLIPS / "command.wav", None, LiveOptions(), "fast")
    assert "words" not in record.groups
    assert any("no word times" in note for note in record.notes)
    assert record.find("session", "erasure") is not None


def test_a_recording_in_which_nobody_speaks(tmp_path: Path) -> None:
    path = tmp_path / "quiet.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(bytes(4 * SAMPLE_RATE))
    with pytest.raises(InputError, match="nobody speaks in"):
        live.measure(None, path, None, LiveOptions(), "fast")


def test_samples_are_available_when_their_chunk_is() -> None:
    timed = live.TimedSource(FilePlayback(np.zeros(SAMPLE_RATE, np.float32) + 0.1, "fast", chunk_samples=4000))
    assert timed.now_s == 0.0
    came: list[float] = []
    while heard := timed.read(0.1):
        assert isinstance(heard[0], Chunk)
        came.append(timed.now_s)
    assert timed.available_s(0.25) <= came[0] < timed.available_s(0.26) <= came[1]
    assert timed.available_s(1.0) == timed.available_s(0.9) <= came[3]
    assert all(early < late for early, late in pairwise(timed.available_s(s) for s in (0.1, 0.3, 0.6, 0.9)))


def test_a_session_that_had_to_wait_for_a_core_says_so() -> None:
    work = SimpleNamespace(work=SimpleNamespace(latency_ms=900.0))
    seen = live.Seen(captions=[(work, at(1))] * 2, cpu_s=1.0)  # pyright: ignore[reportArgumentType]
    assert seen.busy_s == 1.8
    assert not seen.starved
    seen.cpu_s = 0.8
    assert seen.starved


def test_a_final_that_was_ready_waited_for_the_pause_alone() -> None:
    """Its work came before the segment's end, and is counted once, with what was in vain."""
    final = SimpleNamespace(timings=Timings({}, 20.0, 10.0, 5.0, 9, 4))
    seen = live.Seen(
        finals=[(final, Moment(2.0, 2.4)), (final, Moment(5.0, 5.4))],  # pyright: ignore[reportArgumentType]
        available_s=[2.0, 5.0],
        ready=[True, False],
        audio_s=10.0,
        speculated_s=0.065,
        wasted_s=0.025,
    )
    found = {measure.name: measure.samples for measure in live.end_measures(seen)}
    assert found["waited"] == pytest.approx((400, 365)) and found["ttft"] == (0.0, 30.0)
    assert found["final"] == pytest.approx((400, 400)) and found["ready"] == (50.0,)
    assert seen.busy_s == pytest.approx(0.1)
    assert {m.name: m.value for m in live.session_measures(seen, None, None)}["wasted"] == pytest.approx(25.0)


def test_the_command_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(live, "measure", lambda *given: asked.extend(given))
    arguments = SimpleNamespace(
        bundle=Path("b"), source=Path("s"), words=None, task="audiocaption", hop_ms=250.0, context="short", settle=1.5,
        no_draft=True, no_speculation=True, pace="fast", provider="cpu", threads=3, n_gpu_layers=0, kv_type="f16",
        repack=None,
    )  # fmt: skip
    live.run(arguments)  # pyright: ignore[reportArgumentType]
    options = LiveOptions("audiocaption", hop_ms=250.0, context="short", settle_s=1.5, draft=False, speculate=False)
    where = EngineOptions(OrtOptions("cpu", 3), LlmOptions(n_threads=3, n_gpu_layers=0))
    assert asked[:6] == [Path("b"), Path("s"), None, options, "fast", where]
