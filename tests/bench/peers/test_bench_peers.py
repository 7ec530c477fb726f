"""`auricle-bench peers`: who takes turns with whom, what a ratio is, what happens when a contestant is missing."""

from __future__ import annotations

import argparse
import ctypes
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from auricle.bench.options import parser
from auricle.bench.peers import llm, peers, recordings
from auricle.bench.peers.race import Missing, Race, Readiness, Sample, Worker, race
from auricle.bench.peers.recordings import complete
from auricle.bench.peers.table import lines, to_record
from auricle.bench.peers.task import Contestant, Task, Work, no_progress, output_file, whole_or_absent
from auricle.bench.peers.worker import contestants
from auricle.bench.result import read_record, to_line
from auricle.models.bundle import shipped_bundle
from auricle.models.errors import InputError, RunError
from auricle.models.families.salmonn import SALMONN_7B
from auricle.runtime.llm import llama


def never(_: Task) -> Work:
    raise AssertionError("nobody opens it here")


NOBODY = Contestant(never)


@dataclass
class Fake:
    """A contestant that only keeps a diary."""

    name: str
    diary: list[str]
    walls: list[float] = field(default_factory=lambda: [1.0] * 9)
    dies_at: int | None = None
    missing: bool = False
    n_runs: int = 0

    def start(self) -> Readiness:
        if self.missing:
            raise Missing("x is not installed: pip install x")
        self.diary.append(f"+{self.name}")
        return Readiness(resident=1 << 30, versions={})

    def run(self) -> Sample:
        if self.n_runs == self.dies_at:
            raise RunError(f"{self.name} died")
        self.diary.append(self.name)
        self.n_runs += 1
        return Sample(self.walls[self.n_runs - 1], 2.0, 3 << 30)

    def stop(self) -> None:
        self.diary.append(f"-{self.name}")


def started(team: list[Fake], rounds: int, free: Callable[[], int | None] = lambda: None) -> Race:
    return race(team, rounds, no_progress, settle_s=0.0, free_bytes=free)


def test_contestants_take_turns() -> None:
    diary: list[str] = []
    started([Fake(name, diary) for name in ("auricle", "a", "b")], rounds=2)
    assert diary == ["+auricle", "+a", "+b", *(["auricle", "a", "b"] * 2), "-auricle", "-a", "-b"]


def test_a_missing_peer_is_noted_and_left_out() -> None:
    diary: list[str] = []
    found = started([Fake("auricle", diary), Fake("a", diary, missing=True), Fake("b", diary)], rounds=1)
    assert list(found.samples) == ["auricle", "b"]
    assert found.notes == ["a is left out: x is not installed: pip install x"]


def test_a_peer_that_dies_leaves_nothing_and_the_others_go_on() -> None:
    diary: list[str] = []
    found = started([Fake("auricle", diary), Fake("a", diary, dies_at=1), Fake("b", diary)], rounds=3)
    assert {name: len(samples) for name, samples in found.samples.items()} == {"auricle": 3, "b": 3}
    assert found.notes == ["a is left out: a died"]


def test_without_ours_there_is_no_contest() -> None:
    diary: list[str] = []
    with pytest.raises(RunError, match="auricle died"):
        started([Fake("auricle", diary, dies_at=0), Fake("a", diary)], rounds=1)
    assert diary[-2:] == ["-auricle", "-a"]


def test_where_memory_is_short_one_lives_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auricle.bench.peers.race.SETTLE_S", 0.0)
    diary: list[str] = []
    found = started([Fake("auricle", diary), Fake("a", diary)], rounds=2, free=lambda: 1 << 30)
    alive: set[str] = set()
    for entry in diary:
        if entry.startswith("+"):
            assert not alive
            alive.add(entry[1:])
        elif entry.startswith("-"):
            alive.discard(entry[1:])
        else:
            assert alive == {entry}
    assert [len(samples) for samples in found.samples.values()] == [2, 2]
    assert "started anew" in found.notes[0]


def test_ratios_are_taken_within_a_round(tmp_path: Path) -> None:
    diary: list[str] = []
    found = started([Fake("auricle", diary, [1.0, 4.0]), Fake("a", diary, [2.0, 5.0])], rounds=2)
    record = to_record(Task("whisper", tmp_path, layers=3), {"auricle": NOBODY, "a": NOBODY}, found, 2)
    ratio = record.find("a", "ratio_wall")
    assert ratio is not None and ratio.samples == (0.5, 0.8) and ratio.better == "lower"
    assert record.find("auricle", "ratio_wall") is None
    assert record.settings == {"part": "whisper", "rounds": "2", "threads": "2", "layers": "3"}
    memory = record.find("a", "memory")
    assert memory is not None and memory.samples == (pytest.approx(3.22, abs=0.01),)


def test_a_stored_record_renders_the_same_table(tmp_path: Path) -> None:
    diary: list[str] = []
    found = started([Fake("auricle", diary), Fake("a", diary)], rounds=2)
    record = to_record(Task("decode", tmp_path, bundle=shipped_bundle()), {"auricle": NOBODY, "a": NOBODY}, found, 2)
    (tmp_path / "run.txt").write_text("table\n" + to_line(record) + "\n", encoding="utf-8")
    table = lines(record)
    assert lines(read_record(tmp_path / "run.txt")) == table
    assert any("tokens/s" in line for line in table)
    assert "1.000 (1.00-1.00)" in table[2]


def test_errors_are_relative_to_the_reference(tmp_path: Path) -> None:
    task = Task("whisper", tmp_path)
    team = {"auricle": NOBODY, "torch fp32": NOBODY}
    output_file(task, "auricle").parent.mkdir()
    np.save(output_file(task, "torch fp32"), np.full((1, 4), 2.0, np.float32))
    np.save(output_file(task, "auricle"), np.full((1, 4), 2.1, np.float32))
    diary: list[str] = []
    found = started([Fake(name, diary) for name in team], rounds=1)
    error = to_record(task, team, found, 1).find("auricle", "error")
    assert error is not None and error.value == pytest.approx(5.0, rel=1e-4)
    given = to_record(replace(task, graph=tmp_path), team, found, 1)
    assert given.find("auricle", "error") is None  # a graph from elsewhere has other weights


def test_missing_layers_are_extrapolated_and_said_to_be(tmp_path: Path) -> None:
    """The demo has 4 layers: from 1 and 2, two more of what one costs."""
    team = {"auricle": NOBODY, "torch fp32, 1 layers": NOBODY, "torch fp32, 2 layers": NOBODY}
    found = Race(
        {
            "auricle": [Sample(1.0, 1.0, 1 << 30)],
            "torch fp32, 1 layers": [Sample(10.0, 20.0, 4 << 30)],
            "torch fp32, 2 layers": [Sample(11.0, 22.0, 5 << 30)],
        }
    )
    record = to_record(Task("answer", tmp_path, bundle=shipped_bundle()), team, found, 1)
    whole = "torch fp32, all 4"
    for name, value in (("wall", 13.0), ("cpu", 26.0), ("memory", (7 << 30) / 1e9), ("ratio_wall", 1 / 13)):
        measure = record.find(whole, name)
        assert measure is not None and measure.value == pytest.approx(value)
    assert any(note.startswith(f"{whole} layers is extrapolated") for note in record.notes)


@pytest.mark.parametrize(("theirs", "said"), [((1, 2, 3), "the same 3 tokens"), ((1, 9), "the first 1 the same")])
def test_tokens_are_compared(tmp_path: Path, theirs: tuple[int, ...], said: str) -> None:
    ready = {"auricle": Readiness(0, {}, (), (1, 2, 3)), "a": Readiness(0, {}, (), theirs)}
    samples = {name: [Sample(1.0, 1.0, 1)] for name in ready}
    record = to_record(Task("decode", tmp_path), dict.fromkeys(ready, NOBODY), Race(samples, ready), 1)
    assert any(said in note for note in record.notes)


def test_who_spins_while_it_waits_is_called_out(tmp_path: Path) -> None:
    samples = {"auricle": [Sample(10.0, 10.0, 1)], "a": [Sample(10.0, 10.0, 1, idle_cpu_s=5.0)]}
    record = to_record(Task("whisper", tmp_path), dict.fromkeys(samples, NOBODY), Race(samples), 1)
    assert [note for note in record.notes if "while it waited" in note and note.startswith("a used 5.0 s")]


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("shell", "said"),
    [
        ("echo too big >&2; kill -9 $$", "a died (killed, most likely for lack of memory): too big"),
        ("exit 3", "a died (exit status 3): it said nothing"),
        ("""echo '{"error": "no room"}'""", "a failed: no room"),
        ("""echo '{"missing": "zzz"}'""", "zzz is not installed: {python} -m pip install zzz==1"),
    ],
)
def test_what_a_worker_ends_with_is_one_sentence(tmp_path: Path, shell: str, said: str) -> None:
    python = script(tmp_path / "python", shell)
    worker = Worker("a", Contestant(never, pip="zzz==1"), Task("decode", tmp_path), python)
    with pytest.raises((RunError, InputError)) as raised:
        worker.start()
    worker.stop()
    assert str(raised.value) == said.replace("{python}", python)


def test_other_work_than_in_the_warm_up_is_refused(tmp_path: Path) -> None:
    ready = '{"resident": 1, "versions": {}, "shape": [1, 2], "tokens": [], "texts": []}'
    run = '{"wall_s": 1, "cpu_s": 1, "peak": 1, "idle_cpu_s": 0, "shape": [1, 1], "tokens": [], "texts": []}'
    python = script(tmp_path / "python", f"echo '{ready}'; read line; echo '{run}'")
    worker = Worker("a", NOBODY, Task("decode", tmp_path), python)
    assert worker.start().shape == (1, 2)
    with pytest.raises(RunError, match="something else than in its warm-up"):
        worker.run()
    worker.stop()


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    worker = Worker("a", NOBODY, Task("decode", tmp_path), str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="--peer-python"):
        worker.start()


def asked(work: Path, part: str, *words: str) -> argparse.Namespace:
    """One round on one thread."""
    return parser().parse_args(
        ["peers", "--part", part, "--rounds", "1", "--threads", "1", "--work", str(work), *words]
    )


def test_recordings_are_heard_and_words_counted(tmp_path: Path) -> None:
    pytest.importorskip("jiwer", reason="the bench is not installed")
    clip = shipped_bundle() / "clips" / "command.wav"
    rows = [f"{clip}\tturn on the kitchen dishwasher\n", f"{clip}\tturn off the kitchen dishwasher\n"]
    (tmp_path / "set.tsv").write_text("".join(rows), encoding="utf-8")
    words = ("--data", str(tmp_path / "set.tsv"), "--recognizer", str(tmp_path))
    with pytest.raises(InputError, match="--data TSV and --bundle DIR"):
        peers.run(asked(tmp_path, "recordings", *words))
    record = peers.run(asked(tmp_path, "recordings", *words, "--bundle", str(shipped_bundle())))
    found = {measure.name: measure.value for measure in record.measures if measure.group == "auricle"}
    assert (found["wer"], found["words"]) == (10.0, 10) and found["wall"] > 0
    assert "10.0 (" in lines(record)[1]
    assert any("is left out" in note and "faster-whisper" in note for note in record.notes)


def test_weights_without_a_list_of_their_tokens_get_one_beside_links_to_them(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "model.bin").write_bytes(b"numbers")
    tokenizer = {"model": {"vocab": {"b": 1, "a": 0}}, "added_tokens": [{"id": 2, "content": "<|end|>"}]}
    (weights / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    task = Task("recordings", tmp_path / "work")
    for _ in range(2):
        place = complete(task, weights)
        tokens = json.loads((place / "vocabulary.json").read_text(encoding="utf-8"))
        assert tokens[:4] == ["a", "b", "<|end|>", "<|0.00|>"] and tokens[-1] == "<|30.00|>" and len(tokens) == 1504
        assert (place / "model.bin").read_bytes() == b"numbers"
    (weights / "vocabulary.txt").write_text("a\nb\n")
    assert complete(task, weights) == weights


def test_recognizers_of_one_name_are_refused(tmp_path: Path) -> None:
    task = Task("recordings", tmp_path, recognizers=(tmp_path / "a" / "base", tmp_path / "b" / "base"))
    with pytest.raises(InputError, match="two recognizers are called base: give directories of different names"):
        recordings.contestants(task)


def test_our_loop_says_what_llama_cpp_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's language model with the attention that llama.cpp chooses for it: the same tokens."""
    monkeypatch.setattr(llama, "NARROW_HEAD", 0)
    task = Task("decode", tmp_path, threads=1, tokens=8, bundle=shipped_bundle())
    found: list[tuple[int, ...]] = []
    for opened in (llm.open_our_decode(task), llm.open_decode(task, llm.LlamaCpp)):
        assert opened.before is not None
        opened.before()
        found.append(opened.timed().tokens)
    assert found[0] == found[1] and len(found[0]) == 8


def test_the_fork_reads_the_same_ids_at_the_same_positions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ik_llama.cpp's own classes, as far as they are called: the likeliest id behind a token is the one after it."""
    read: list[tuple[list[int], int]] = []

    class Model:
        n_vocab = 4096

        def __init__(self, path: str, n_gpu_layers: int) -> None:
            assert Path(path).name == "llm.gguf" and n_gpu_layers == 0

    class Context:
        def __init__(self, model: Model, n_ctx: int, n_threads: int) -> None:
            assert (n_ctx, n_threads) == (512, 1)

        def kv_cache_clear(self) -> None:
            read.clear()

        def decode(self, batch: tuple[list[int], int]) -> int:
            read.append(batch)
            return 0

        def get_logits(self) -> Any:
            logits = np.zeros(Model.n_vocab, np.float32)
            logits[(read[-1][0][-1] + 1) % Model.n_vocab] = 1.0
            return logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float))

    def batch(ids: list[int], pos_start: int) -> tuple[list[int], int]:
        return ids, pos_start

    module = SimpleNamespace(IkModel=Model, IkContext=Context, make_batch_range=batch)
    monkeypatch.setitem(sys.modules, "ik_llama_cpp._internals", module)  # pyright: ignore[reportArgumentType]
    task = Task("decode", tmp_path, threads=1, tokens=4, bundle=shipped_bundle())
    work = llm.open_decode(task, llm.IkLlamaCpp)
    assert work.before is not None
    for _ in range(2):
        work.before()
        last = read[0][0][-1]
        assert work.timed().tokens == tuple((last + n) % Model.n_vocab for n in range(1, 5))
        assert [(len(ids), at) for ids, at in read] == [(110, 0), (1, 110), (1, 111), (1, 112)]


def test_where_the_weights_of_an_answer_lie(tmp_path: Path) -> None:
    """A directory that has all of them, but for a Whisper that is given; or trained parts alone, as `small`'s."""
    pytest.importorskip("torch")
    from auricle.bench.peers.answer import checkpoint_options

    spec = SALMONN_7B
    (tmp_path / "vicuna").mkdir()
    task = Task("answer", tmp_path, checkpoint=tmp_path)
    assert checkpoint_options(task, spec).whisper == tmp_path / "whisper"
    given = checkpoint_options(replace(task, whisper=tmp_path / "tiny"), spec)
    assert (given.whisper, given.vicuna) == (tmp_path / "tiny", tmp_path / "vicuna")
    assert (given.longest_seconds, given.second_stride) == (30.0, spec.qformer.second_stride)
    (tmp_path / "vicuna").rmdir()
    with pytest.raises(InputError, match=r"has no salmonn\.pth, beats\.pt, args\.json"):
        checkpoint_options(task, spec)


def test_decoding_is_raced(tmp_path: Path) -> None:
    """The demo's language model, for real: two processes, one round.

    llama.cpp's default for heads as narrow as these is flash attention, which rounds otherwise than ours: a near tie
    may turn, and the record says so.
    """
    record = peers.run(asked(tmp_path, "decode", "--tokens", "8"))
    assert record.groups == ("auricle", "llama.cpp")  # and nobody whose package is not there
    same = r"llama.cpp gave (the same 8 tokens as auricle|8 tokens and auricle 8, the first [5-7] the same)"
    assert any(re.fullmatch(same, note) for note in record.notes)
    for group in record.groups:
        wall, memory = record.find(group, "wall"), record.find(group, "memory")
        assert wall is not None and wall.value > 0
        assert memory is not None and 0.01 < memory.value < 4


def test_trained_weights_and_a_recording_are_what_whisper_is_compared_on(golden: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from auricle.bench.peers import whisper
    from auricle.export.encoders.whisper import load_whisper

    checkpoint = golden / "salmonn-tiny" / "checkpoint" / "whisper"
    task = Task("whisper", tmp_path, whisper=checkpoint, recording=golden / "jfk.wav")
    spec, trained = load_whisper(checkpoint)
    assert Task.from_json(task.as_json()) == task and whisper.spec_of(task) == spec
    found = whisper.encoder(task, "eager").state_dict()
    assert all(np.array_equal(found[name], tensor) for name, tensor in trained.state_dict().items())
    heard = whisper.window(task)
    assert len(heard) == spec.n_samples and heard[48_000:].any() and not heard[11 * 16_000 + 800 :].any()
    assert len(whisper.calibration(task)) > 1


@pytest.mark.parametrize("part", list(peers.PARTS))
def test_every_part_has_ours_first(part: str, tmp_path: Path) -> None:
    names = list(contestants(Task(part, tmp_path, bundle=shipped_bundle(), recognizers=(tmp_path,))))
    assert names[0] == "auricle" and len(names) > 1


def test_only_some() -> None:
    known: dict[str, Contestant] = dict.fromkeys(("auricle", "a", "b"), NOBODY)
    assert list(peers.chosen(known, "b")) == ["auricle", "b"]
    with pytest.raises(InputError, match="nobody is called 'c'"):
        peers.chosen(known, "b, c")


def test_a_task_survives_its_command_line(tmp_path: Path) -> None:
    task = Task("whisper", tmp_path, threads=3, layers=2, bundle=tmp_path / "b", own_threads=False)
    task = replace(task, data=tmp_path / "set.tsv", recognizers=(tmp_path / "tiny", tmp_path / "base"))
    assert Task.from_json(task.as_json()) == task


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_or_absent(tmp_path / "kept" / "weights") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert list((tmp_path / "kept").iterdir()) == []


def test_our_side_of_the_contests_of_a_salm(salm_bundle: Path, tmp_path: Path) -> None:
    from auricle.bench.peers import salm as peer_salm

    pytest.importorskip("torch")
    whole = peer_salm.open_whole(Task("transcribe", tmp_path, threads=1, tokens=5, bundle=salm_bundle))
    assert whole.timed().shape == (5,)
    with pytest.raises(InputError, match="a bundle is needed"):
        peer_salm.open_whole(Task("transcribe", tmp_path))
    with pytest.raises(InputError, match="is no SALM"):
        peer_salm.spec_of(Task("fastconformer", tmp_path, bundle=shipped_bundle()))
