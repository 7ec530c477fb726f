"""How quality is counted: words, tables of recordings, what quantization changed, and a run in processes of its own."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="the bench is not installed")
from auricle.bench.datasets import Item, demo_items, named_kind, table_items
from auricle.bench.quality import divergence, quality
from auricle.bench.quality import table as quality_tables
from auricle.bench.quality.worker import Job, measure_apart
from auricle.bench.result import Record, read_record, to_line
from auricle.bench.word_errors import (
    WordErrors,
    bootstrap_interval,
    differences,
    matches,
    normalized,
    token_f1,
    total,
    word_errors,
)
from auricle.models.audio import SAMPLE_RATE, synthetic_clip
from auricle.models.bundle import read_manifest, shipped_bundle
from auricle.models.dataclass_json import encode
from auricle.models.errors import InputError, RunError
from auricle.runtime.bundle import open_bundle
from auricle.runtime.engine import Engine, load

CLIPS = shipped_bundle() / "clips"
ASKED = read_manifest(shipped_bundle()).prompt


def fewest_edits(said: list[str], heard: list[str]) -> int:
    """Levenshtein's distance, row by row: what demo-eval used to count with."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        previous, row = row, [i]
        for j, other in enumerate(heard, 1):
            row.append(min(previous[j - 1] + (word != other), previous[j] + 1, row[j - 1] + 1))
    return row[-1]


def test_word_errors_are_the_fewest_edits() -> None:
    rng = random.Random(1)
    for _ in range(300):
        said, heard = ([rng.choice(["a", "bb", "ccc", "d", "e"]) for _ in range(rng.randint(0, 9))] for _ in range(2))
        expected = WordErrors(fewest_edits(said, heard), len(said))
        assert word_errors(" ".join(said), " ".join(heard), str.split) == expected
        assert word_errors(" ".join(said), " ".join(heard)) == expected


@pytest.mark.parametrize(
    ("said", "heard", "errors", "words"),
    [
        ("Turn on the light.", "turn on the light", 0, 4),
        ("Don't!", "dont", 0, 1),
        ("don\u2019t", "don't", 0, 1),
        ("a well-known song", "a well known song", 0, 4),
        ("caf\u00e9", "cafe\u0301", 0, 1),
        ("it is 3.5", "it is 3 5", 2, 3),
        ("3 apples", "three apples", 1, 2),
        ("", "", 0, 0),
        ("...", "", 0, 0),
        ("", "two words", 2, 0),
        ("two words", "", 2, 2),
        ("今天天气", "今天天汽", 1, 4),
        ("我用 GPU 了", "我用gpu", 1, 4),
    ],
)
def test_what_a_word_is(said: str, heard: str, errors: int, words: int) -> None:
    assert word_errors(said, heard) == WordErrors(errors, words)


def test_text_can_be_taken_as_it_is() -> None:
    assert word_errors("A b.", "a b", str.split) == WordErrors(2, 2)


def test_rates_add_up_by_words_not_by_sentences() -> None:
    assert total([WordErrors(1, 1), WordErrors(0, 9)]).rate == 0.1
    assert total([]).rate == 0.0


def test_matches_are_the_words_heard_right() -> None:
    assert matches(["a", "b", "c", "d"], ["a", "x", "c"]) == [(0, 0), (2, 2)]
    assert matches([], ["a"]) == []


def test_bootstrap_of_two_sentences_is_as_worked_out() -> None:
    """Drawn again, two sentences of one word give 0, 1/2, 1 with probability 1/4, 1/2, 1/4."""
    two = [WordErrors(1, 1), WordErrors(0, 1)]
    assert bootstrap_interval(two, seed=1) == (0.0, 1.0)
    assert bootstrap_interval(two, seed=1, share=0.4) == (0.5, 0.5)


def test_bootstrap_interval_holds_the_rate_and_narrows() -> None:
    few, many = ([WordErrors(n % 4 == 0, 4) for n in range(size)] for size in (20, 2000))
    wide, narrow = bootstrap_interval(few, seed=3), bootstrap_interval(many, seed=3)
    assert wide[0] <= narrow[0] < 1 / 16 < narrow[1] <= wide[1]
    assert bootstrap_interval(few, seed=3) == wide
    assert bootstrap_interval([WordErrors(1, 4)], seed=1) == (0.25, 0.25)
    assert bootstrap_interval([], seed=1) == (0.0, 0.0)


def test_two_systems_that_err_alike_differ_by_nothing_whatever_is_drawn() -> None:
    errors = [WordErrors(n % 3, 4) for n in range(60)]
    same = differences(errors, errors)
    assert total(same).rate == 0 and bootstrap_interval(same, seed=1) == (0, 0)
    worse = differences([WordErrors(each.errors + 1, 4) for each in errors], errors)
    assert total(worse).rate == 0.25 and bootstrap_interval(worse, seed=1) == (0.25, 0.25)
    assert total(differences(errors[:1], errors[1:2])).rate == -0.25


def test_captions_are_compared_as_bags_of_words() -> None:
    assert token_f1("a dog barks", "A dog is barking.") == pytest.approx(2 * 2 / 7)
    assert token_f1("a a b", "a") == pytest.approx(2 * 1 / 4)
    assert (token_f1("", ""), token_f1("a", "")) == (1.0, 0.0)
    assert normalized("It's 1,000.50 - sure?") == ["its", "1,000.50", "sure"]


# tables of recordings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.wav"):
        shutil.copy(CLIPS / "command.wav", tmp_path / name)
    return tmp_path


def table(folder: Path, text: str) -> Path:
    path = folder / "set.tsv"
    path.write_bytes(text.encode())
    return path


def test_a_table_without_names_of_columns(folder: Path) -> None:
    path = table(folder, "\ufeffa.wav\tone\r\n\r\nb.wav\ttwo\taudiocaption\r\na.wav\tone\t\r\nb.wav\t\tWhat is it?\n")
    items = table_items(path, ASKED, "asr", None, 1)
    assert [Path(item.audio).name for item in items] == ["a.wav", "b.wav", "a.wav", "b.wav"]
    assert [item.reference for item in items] == ["one", "two", "one", ""]
    assert [item.kind for item in items] == ["words", "caption", "words", "exact"]
    assert items[1].prompt == "Please describe the audio."
    assert items[3].origin == f"{path}:5"


def test_a_table_with_names_of_columns_in_any_order(folder: Path) -> None:
    path = table(folder, "client_id\tsentence\tage\tpath\n7\tgood day\t\ta.wav\n")
    item = table_items(path, ASKED, "slot_filling:room", None, 1)[0]
    assert (Path(item.audio), item.reference, item.kind) == (folder / "a.wav", "good day", "exact")


def test_a_part_of_a_table_is_drawn_from_the_seed(folder: Path) -> None:
    path = table(folder, "".join(f"a.wav\t{n}\n" for n in range(50)))
    drawn = [item.reference for item in table_items(path, ASKED, "asr", 10, 1)]
    assert len(drawn) == 10
    assert drawn == sorted(drawn, key=int)
    assert drawn == [item.reference for item in table_items(path, ASKED, "asr", 10, 1)]
    assert drawn != [item.reference for item in table_items(path, ASKED, "asr", 10, 2)]
    assert len(table_items(path, ASKED, "asr", 99, 1)) == 50


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.wav\tone\nb.wav two\n", "set.tsv:2 has 1 columns"),
        ("a.wav\tone\tasr\textra\n", "set.tsv:1 has 4 columns"),
        ("\tone\n", "set.tsv:1 names no audio file"),
        ("a.wav\tone\nb.wav\ttwo\tQA\n", "set.tsv:2: task 'QA' has a blank"),
        ("sentence\tpath\nhello\n", "set.tsv:2 has 1 columns, fewer than the first line names"),
        ("\n \n", "holds no clips"),
        ("audio\ttext\n", "holds no clips"),
        ("a.wav\t1\nx.wav\t1\ny/z.wav\t1\n", "2 of 3 audio files are not there: "),
        ("set.tsv\tone\n", "set.tsv:1: "),
    ],
)
def test_a_bad_table_is_refused_with_its_line(folder: Path, text: str, said: str) -> None:
    path = table(folder, text)
    with pytest.raises(InputError) as caught:
        table_items(path, ASKED, "asr", None, 1)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_missing_file_is_told_at_once(folder: Path) -> None:
    path = table(folder, "".join(f"gone{n}.wav\tx\n" for n in range(7)))
    with pytest.raises(InputError, match=r"gone0\.wav .*set\.tsv:1.*gone4\.wav .* and 2 more"):
        table_items(path, ASKED, "asr", None, 1)


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "set.tsv").write_bytes(b"a.wav\t\xff\n")
    with pytest.raises(InputError, match="not UTF-8 text at byte 6"):
        table_items(tmp_path / "set.tsv", ASKED, "asr", None, 1)
    with pytest.raises(InputError, match="cannot be read"):
        table_items(tmp_path / "none.tsv", ASKED, "asr", None, 1)


def test_tasks_are_scored_by_what_they_ask() -> None:
    assert [named_kind(task, ASKED) for task in ("asr_zh", "audiocaption", "slot_filling:room", "Who is it?")] == [
        *("words", "caption", "exact", "exact")
    ]
    assert named_kind("Recognize the speech and give me the transcription.", ASKED) == "words"


@pytest.mark.skipif(not (shutil.which("espeak-ng") and shutil.which("flite")), reason="the synthesizers are missing")
def test_the_demo_set_is_sentences_and_sounds(tmp_path: Path) -> None:
    items = demo_items(ASKED, 3, 1, tmp_path, lambda *_: None)
    assert [item.kind for item in items] == ["words"] * 3 + ["sound"] * 2
    assert all(np.load(item.audio).dtype == np.float32 for item in items)
    again = demo_items(ASKED, 3, 1, tmp_path, lambda *_: None)
    assert again == items


# what quantization changed


def floats(*values: float) -> divergence.Floats:
    return np.array([values], np.float32)


def test_divergence_is_as_worked_out() -> None:
    p, q = np.log(floats(0.5, 0.5)), np.log(floats(0.9, 0.1))
    expected = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert divergence.divergence(p + 3, q - 7) == pytest.approx([expected], rel=1e-5)
    assert divergence.divergence(q, q).tolist() == [0.0]


def test_relative_error_is_as_worked_out() -> None:
    assert divergence.relative_error(floats(3, 4), floats(3, 5)) == pytest.approx(1 / 5)
    assert divergence.relative_error(floats(0), floats(0)) == 0.0


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture
def kept(engine: Engine, tmp_path: Path) -> Path:
    """What the demo says of a clip, as a reference keeps it."""
    answer = engine.ask(CLIPS / "command.wav", "asr")
    waveform = next(engine.segments(CLIPS / "command.wav")).waveform
    divergence.keep_vocabulary(engine.llm, tmp_path)
    divergence.keep(engine, waveform, answer.prompt, answer.segments[0].token_ids, True, tmp_path / "0.npz")
    return tmp_path / "0.npz"


def change(path: Path, **arrays: np.ndarray) -> None:
    with np.load(path) as old:
        merged = {**{name: old[name] for name in old.files}, **arrays}
    np.savez(path, allow_pickle=False, **merged)


def test_forced_tokens_are_those_of_the_free_answer(engine: Engine, kept: Path) -> None:
    """Every token of the greedy answer is the likeliest where it stands, and so is the end."""
    with np.load(kept) as arrays:
        likeliest = engine.llm.allowed(arrays["logits"]).argmax(axis=-1).tolist()
        assert likeliest[:-1] == arrays["ids"].tolist()
        assert likeliest[-1] in engine.llm.eos


def test_a_bundle_is_no_distance_from_itself(engine: Engine, kept: Path) -> None:
    same = divergence.compare(engine, [kept])
    assert (same.llm, same.chain) == (divergence.Distance(0.0, 0.0, 1.0),) * 2
    assert same.errors == {"speech": (0.0,), "audio": (0.0,), "audio_tokens": (0.0,)}


def test_what_differs_is_seen_where_it_is(engine: Engine, kept: Path) -> None:
    """Another encoder's output shows in its stage, other audio tokens in the model alone, other logits in both."""
    with np.load(kept) as arrays:
        speech, tokens, logits = arrays["stage_speech"], arrays["stage_audio_tokens"], arrays["logits"]
    change(kept, stage_speech=speech / np.float32(1.25))
    found = divergence.compare(engine, [kept])
    assert found.errors["speech"] == pytest.approx((0.25,), rel=1e-5)
    assert found.llm.kl == found.chain.kl == 0.0

    change(kept, stage_audio_tokens=np.zeros_like(tokens))
    found = divergence.compare(engine, [kept])
    assert found.llm.kl > 1.0 > found.chain.kl == 0.0
    assert found.llm.agreement < 1.0 == found.chain.agreement

    change(kept, stage_audio_tokens=tokens, logits=np.roll(logits, 1, axis=-1))
    found = divergence.compare(engine, [kept])
    assert found.chain.kl > 1.0
    assert found.chain.agreement == 0.0
    assert found.n_tokens == len(logits)


def test_another_vocabulary_is_no_reference(engine: Engine, kept: Path) -> None:
    (kept.parent / divergence.VOCABULARY).write_text("another")
    with pytest.raises(InputError, match="another vocabulary"):
        divergence.compare(engine, [kept])


# the command


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """Four shipped clips, one of them twice, and silence, by the demo against itself."""
    import wave

    folder = tmp_path_factory.mktemp("set")
    with wave.open(str(folder / "silence.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(bytes(2 * SAMPLE_RATE))
    rows = [c for c in json.loads((CLIPS / "clips.json").read_text()) if c["file"] in ("command.wav", "siren.wav")]
    rows += [c for c in json.loads((CLIPS / "clips.json").read_text()) if c["file"] in ("weather.wav", "sum.wav")]
    lines = [f"{CLIPS / c['file']}\t{c['expected']}\t{c['task']}\n" for c in (*rows, rows[0])]
    path = folder / "set.tsv"
    path.write_text("".join(lines) + "silence.wav\tnobody said this\n")
    options = quality.QualityOptions(reference=shipped_bundle(), data=path)
    return quality.measure([shipped_bundle()], options)


def value(record: Record, name: str) -> float:
    found = record.find(record.groups[0], name)
    assert found is not None, name
    return found.value


def test_a_run_against_itself(measured: Record) -> None:
    assert measured.groups == ("auricle-demo",)
    for name in ("kl", "kl_p95", "audio_kl", "error_speech", "error_audio", "error_audio_tokens"):
        assert value(measured, name) == 0.0, name
    assert value(measured, "agreement") == value(measured, "audio_agreement") == 100.0


def test_scores_of_a_run(measured: Record) -> None:
    """The demo gets its own clips right; of 13 words spoken, the three over silence are missed."""
    assert value(measured, "words") == 2 * 5 + 3
    assert value(measured, "wer") == pytest.approx(100 * 3 / 13)
    assert value(measured, "wer_low") <= value(measured, "wer") <= value(measured, "wer_high")
    assert value(measured, "caption") == 100.0
    assert any("set.tsv:6: the clip is silent" in note for note in measured.notes)


def test_exact_answers_are_those_that_ask_gives_too(measured: Record, engine: Engine) -> None:
    rows = [c for c in json.loads((CLIPS / "clips.json").read_text()) if c["file"] in ("weather.wav", "sum.wav")]
    right = [engine.ask(CLIPS / c["file"], c["task"]).text == c["expected"] for c in rows]
    assert value(measured, "exact") == 100 * sum(right) / 2


def test_speed_and_size_of_a_run(measured: Record) -> None:
    heard = measured.find("auricle-demo", "ttft")
    assert heard is not None
    assert len(heard.samples) == 5, "the silent clip has no time to first token"
    assert value(measured, "size") == pytest.approx(
        sum(entry.size for entry in open_bundle().manifest.files) / 1e9, rel=1e-6
    )
    graphs = sum(entry.size for entry in open_bundle().manifest.files if entry.path.endswith(".onnx"))
    assert value(measured, "encoders_size") == pytest.approx(graphs / 1e6, rel=1e-6)
    hearing = measured.find("auricle-demo", "encoders")
    assert hearing and all(0 < a < b for a, b in zip(hearing.samples, heard.samples, strict=True))
    if Path("/proc/self/status").exists():
        assert 0.05 < value(measured, "memory") < 1.0
    assert min(value(measured, name) for name in ("tpot", "rtf", "speed")) > 0


def test_a_stored_record_shows_the_same_table(measured: Record, tmp_path: Path) -> None:
    path = tmp_path / "run.txt"
    shown = quality_tables.lines(measured)
    path.write_text("\n".join([*shown, to_line(measured)]))
    assert quality_tables.lines(read_record(path)) == shown
    assert shown[-1].startswith("auricle-demo: peak memory ")
    assert "WER 23.1 (" in shown[-1]
    assert "caption F1 100.0 %" in shown[-1]
    assert all(len(line) < 160 for line in shown[:10])


def test_the_other_family_is_measured_the_same_way(salm_bundle: Path, tmp_path: Path) -> None:
    """Its tasks are its own: one called asr, and everything else a prompt."""
    asked = read_manifest(salm_bundle).prompt
    assert (named_kind("asr", asked), named_kind("audiocaption", asked)) == ("words", "exact")
    shutil.copy(CLIPS / "command.wav", tmp_path)
    (tmp_path / "set.tsv").write_text("command.wav\tturn on the light\n", encoding="utf-8")
    assert table_items(tmp_path / "set.tsv", asked, "asr", None, 1)[0].prompt == asked.tasks["asr"]
    options = quality.QualityOptions(reference=salm_bundle, data=tmp_path / "set.tsv")
    record = quality.measure([salm_bundle], options)
    for name in ("kl", "audio_kl", "error_audio_tokens"):
        found = record.find(record.groups[0], name)
        assert found and found.value == 0
    assert record.find(record.groups[0], "wer") and not record.find(record.groups[0], "error_speech")
    table = "\n".join(quality_tables.lines(record))
    assert "audio tokens %" in table and "speech %" not in table


def test_bundles_are_told_apart(tmp_path: Path) -> None:
    demo = open_bundle()
    document = json.loads((demo.directory / "manifest.json").read_text())

    def like(place: Path, **changed: object) -> Path:
        shutil.copytree(demo.directory, place)
        (place / "manifest.json").write_text(json.dumps({**document, **changed}))
        return place

    other = like(tmp_path / "other", quantization={**encode(demo.manifest.quantization), "llm": "q4_0"})
    renamed = like(tmp_path / "renamed", name="another")
    kinds = {**encode(demo.manifest.quantization), "llm": "q4_0"}
    asked = [{**document["provenance"], "options": options} for options in ({"llm": "gptq-q4_0"}, {"imatrix": "auto"})]
    solved, weighed = (like(tmp_path / f"{i}", quantization=kinds, provenance=p) for i, p in enumerate(asked))
    opened = {path: open_bundle(path) for path in (other, renamed, solved, weighed)}
    in_four_bits = [opened[path] for path in (other, solved, weighed)]
    assert quality.labels(in_four_bits) == ["int8/q4_0", "int8/gptq-q4_0", "int8/q4_0 imatrix"]
    assert quality.labels([demo]) == ["auricle-demo"]
    assert quality.labels([demo, opened[other]]) == ["int8/q8_0", "int8/q4_0"]
    assert quality.labels([demo, opened[renamed]]) == ["auricle-demo", "another"]
    assert quality.labels([demo, opened[other], opened[renamed]]) == [
        *("auricle-demo int8/q8_0", "auricle-demo int8/q4_0", "another int8/q8_0")
    ]


def test_the_reference_must_be_the_same_model(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shipped_bundle(), other)
    text = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(text.replace('"turn": "USER:', '"turn": "HUMAN:'))
    with pytest.raises(InputError, match="bundles of one model"):
        quality.measure([shipped_bundle()], quality.QualityOptions(reference=other))


def test_the_reference_comes_first_and_every_bundle_once(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(shipped_bundle(), other)
    given = [other, shipped_bundle(), tmp_path / "x" / ".." / "other"]
    (tmp_path / "x").mkdir()
    assert [bundle.directory.resolve() for bundle in quality.open_all(given, shipped_bundle())] == [
        *(shipped_bundle().resolve(), other.resolve())
    ]


def test_a_cache_by_its_types(tmp_path: Path) -> None:
    """One bundle against itself with a cache of f32, which comes first whether it was asked for or not."""
    (tmp_path / "set.tsv").write_text(f"{CLIPS / 'command.wav'}\tturn on the kitchen dishwasher\n", encoding="utf-8")
    options = quality.QualityOptions(data=tmp_path / "set.tsv", kv_types=("q4_0", "f32", "q4_0"))
    record = quality.measure([shipped_bundle()], options)
    assert record.groups == ("cache f32", "cache q4_0") and len(record.subjects) == 1
    assert (record.settings["kv types"], record.settings["reference"]) == ("f32, q4_0", "cache f32")
    exact, coarse = ({m.name: m.value for m in record.measures if m.group == group} for group in record.groups)
    assert exact["kl"] == 0 < coarse["kl"] and exact["agreement"] == 100 and exact["wer"] == 0
    assert coarse["wer_difference"] == coarse["wer"] - exact["wer"] and "wer_difference" not in exact
    assert exact["cache"] / coarse["cache"] == pytest.approx(32 / 4.5)
    assert exact["cache"] == pytest.approx(2 * 4 * 256 * 4 * 512 / 1e6)
    assert not [name for name in exact if name.startswith(("error_", "audio_", "size"))]
    table = "\n".join(quality_tables.lines(record))
    assert "WER points (95 %)" in table
    assert "cache MB" in table and "against cache f32: KL divergence" in table and "size GB" not in table


def test_caches_are_those_of_one_bundle(tmp_path: Path) -> None:
    options = quality.QualityOptions(kv_types=("f16",))
    shutil.copytree(shipped_bundle(), tmp_path / "other")
    with pytest.raises(InputError, match="of one bundle, but 2 were given"):
        quality.measure([shipped_bundle(), tmp_path / "other"], options)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"clips": 0}, {"task": "asr"}, {"task": " ", "data": Path("x.tsv")}),
        *({"kv_types": ("f16", "q5_0")}, {"kv_types": ("f16",), "reference": Path("x")}),
    ],
)
def test_impossible_options(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        quality.QualityOptions(**wrong)  # pyright: ignore[reportArgumentType]


def job(bundle: Path, folder: Path) -> Job:
    np.save(folder / "clip.npy", synthetic_clip(1, 1.0))
    item = Item(str(folder / "clip.npy"), "", "asr", "words", "clip")
    return Job(str(bundle), (item,), None, False, 1)


def test_what_a_process_says_no_to_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no directory"):
        measure_apart(job(tmp_path / "none", tmp_path), tmp_path, lambda *_: None)


def test_a_process_that_dies_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\necho out of everything >&2\nexit 3\n")
    dying.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dying))
    with pytest.raises(RunError, match=r"status 3 \(out of everything\)"):
        measure_apart(job(shipped_bundle(), tmp_path), tmp_path, lambda *_: None)
