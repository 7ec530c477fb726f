"""The whole way from a clip to words, against the reference's own ids; and what a user types, with what comes back."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.models.bundle import MANIFEST
from auricle.models.errors import AudioError, AuricleError, BundleError, InputError, RunError
from auricle.models.families.salmonn import TASKS
from auricle.models.prompt import prompt_for
from auricle.runtime import self_check
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import open_audio, read_audio
from auricle.runtime.chat import Chat
from auricle.runtime.cli import caption as caption_command
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import Final, Piece, SegmentStarted, Timings
from auricle.runtime.families.salmonn import SalmonnEncoders
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from onnxruntime import OrtValue

JFK = Path(__file__).parent / "golden" / "jfk.wav"
GREEDY = Generation(max_new_tokens=16)
BEAMS = Generation(max_new_tokens=16, beams=4)


@pytest.fixture(scope="module")
def engine(golden_bundle: Path) -> Iterator[Engine]:
    with load(golden_bundle) as opened:
        yield opened


def prompt_of(clip: dict[str, np.ndarray]) -> str:
    """The golden files keep the prompt with SALMONN's template around it."""
    words = str(clip["prompt"]).removeprefix("USER: <Speech><SpeechHere></Speech> ")
    return words.removesuffix("\nASSISTANT:")


def test_audio_tokens_are_the_references(engine: Engine, clip: dict[str, np.ndarray]) -> None:
    heard = engine.encode(clip["pcm_float32"])
    np.testing.assert_allclose(heard.audio_tokens, clip["audio_tokens"], atol=1e-4)


def test_words_are_the_references(engine: Engine, clip: dict[str, np.ndarray]) -> None:
    greedy = engine.ask(clip["pcm_float32"], prompt_of(clip), GREEDY)
    beams = engine.ask(clip["pcm_float32"], prompt_of(clip), BEAMS)
    assert greedy.segments[0].token_ids == tuple(clip["ids_beams1"][1:].tolist())
    assert beams.segments[0].token_ids == tuple(clip["ids_beams4"][1:].tolist())
    assert f"<s>{greedy.text}" == str(clip["text_beams1"]).removesuffix("</s>").rstrip()
    assert f"<s>{beams.text}" == str(clip["text_beams4"]).removesuffix("</s>").rstrip()


def test_pieces_join_to_the_final_text(engine: Engine, clip: dict[str, np.ndarray]) -> None:
    events = list(engine.stream(clip["pcm_float32"], "asr", GREEDY))
    assert isinstance(events[-1], Final)
    assert events[0] == SegmentStarted(0.0, len(clip["pcm_float32"]) / 16_000, alone=True)
    pieces = [event for event in events[1:-1] if isinstance(event, Piece)]
    assert len(pieces) == len(events) - 2
    assert "".join(piece.text for piece in pieces).strip() == events[-1].text


def test_each_encoder_is_timed_alone(engine: Engine, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is when both are done: side by side on a GPU, one after the other on a CPU."""
    jfk = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"]

    def slowly(encode: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        return lambda *heard: (time.sleep(seconds), encode(*heard))[1]

    encoders = cast(SalmonnEncoders, engine.encoders)
    for encoder, seconds in ((encoders.whisper, 0.5), (encoders.beats, 1.0)):
        monkeypatch.setattr(encoder, "encode", slowly(encoder.encode, seconds))
    for provider, beside in (("cpu", False), ("cuda", True)):
        monkeypatch.setattr(encoders.whisper.session, "provider", provider)
        timings = engine.ask(jfk, "asr", Generation(max_new_tokens=2)).segments[0].timings
        whisper_ms, beats_ms, qformer_ms = (timings.stages[name] for name in ("whisper", "beats", "qformer"))
        assert whisper_ms > 500
        assert beats_ms > 1000
        assert timings.encoders_ms > beats_ms + qformer_ms
        assert (timings.encoders_ms < whisper_ms + beats_ms) == beside
        assert timings.ttft_ms == timings.encoders_ms + timings.prefill_ms


def test_timings_name_every_stage(golden_bundle: Path, beep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert auricle("ask", beep, "asr", "--bundle", golden_bundle, "--timings", "--max-new-tokens", 2) == 0
    said = capsys.readouterr().err
    for stage in ("encoders", "whisper", "beats", "qformer", "prefill", "tokens", "first token"):
        assert stage in said


def test_batch_of_clips_answers_as_each_alone(golden_bundle: Path, golden: Path) -> None:
    """Trap 24: the reference's batches change its answers; here nothing of one clip reaches the next."""
    names = ("jfk_11s", "noise_1s", "jfk_11s", "tone_30s")
    clips = [np.load(golden / "salmonn-tiny" / f"{name}.npz")["pcm_float32"] for name in names]
    with load(golden_bundle) as together:
        answers = [together.ask(clip, "asr", GREEDY).text for clip in clips]
    with load(golden_bundle) as alone:
        assert answers[0] == answers[2] == alone.ask(clips[0], "asr", GREEDY).text
    with load(golden_bundle) as alone:
        assert answers[3] == alone.ask(clips[3], "asr", GREEDY).text


def test_long_clip_is_answered_in_segments(engine: Engine, golden: Path) -> None:
    jfk = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"]
    clip = np.concatenate([jfk, np.zeros(8000, np.float32)] * 4)
    answer = engine.ask(clip, "asr", Generation(max_new_tokens=2))
    ends = [0.0, *(s.end_s for s in answer.segments)]
    assert len(answer.segments) >= 2
    assert [s.start_s for s in answer.segments] == ends[:-1]
    assert all(s.end_s - s.start_s <= 30 for s in answer.segments)
    assert ends[-1] == pytest.approx(len(clip) / 16_000)


@pytest.mark.slow
def test_ten_minutes_are_heard_once_and_never_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every sample lies in exactly one segment, and memory does not grow with the clip, which would take 38 MB."""
    psutil = pytest.importorskip("psutil")
    speech = np.append(read_audio(JFK), np.zeros(8000, np.float32))
    path = write_clip(tmp_path / "long.wav", np.resize(speech, 600 * 16_000))
    wanted, heard = hashlib.sha256(), hashlib.sha256()
    for chunk in open_audio(path):
        wanted.update(chunk.tobytes())
    finals: list[Final] = []
    held: list[int] = []
    with load() as engine:
        encode = cast(SalmonnEncoders, engine.encoders).whisper.encode

        def listen(waveform: Waveform, *rest: Any) -> Any:
            heard.update(waveform.tobytes())
            return encode(waveform, *rest)

        monkeypatch.setattr(cast(SalmonnEncoders, engine.encoders).whisper, "encode", listen)
        for event in engine.stream(path, "asr", Generation(max_new_tokens=2)):
            if isinstance(event, Final):
                finals.append(event)
                held.append(psutil.Process().memory_info().rss)
    assert heard.digest() == wanted.digest()
    assert [final.start_s for final in finals] == pytest.approx([0.0, *(final.end_s for final in finals[:-1])])
    assert finals[-1].end_s == 600
    assert all(final.end_s - final.start_s <= engine.spec.seconds for final in finals)
    assert max(held) - held[len(held) // 4] < 16e6


def test_silence_between_speech_is_not_asked(engine: Engine, golden: Path) -> None:
    jfk = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"]
    answer = engine.ask(np.concatenate([jfk, np.zeros(16_000 * 70, np.float32), jfk]), "asr", Generation(2))
    assert len(answer.segments) == 2


@pytest.mark.parametrize("seconds", [1, 45])
def test_silent_clip_is_a_sentence(engine: Engine, seconds: int) -> None:
    with pytest.raises(AudioError, match="silent"):
        engine.ask(np.zeros(16_000 * seconds, np.float32), "asr")


@pytest.mark.parametrize("n", [1, 100, 1599])
def test_clip_under_a_tenth_of_a_second_is_a_sentence(engine: Engine, n: int) -> None:
    with pytest.raises(AudioError, match=r"0\.1"):
        engine.ask(np.ones(n, np.float32) * 0.5, "asr")


@pytest.mark.parametrize("graph", ["whisper", "beats", "qformer"])
def test_a_graph_that_computes_no_numbers_is_named(engine: Engine, graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the language model, which is given them."""
    session = engine._graphs._sessions[graph]
    run = session.run

    def spoiled(**inputs: Any) -> OrtValue:
        output = run(**inputs).numpy()
        output[..., -1] = np.nan
        return OrtValue.ortvalue_from_numpy(output)

    monkeypatch.setattr(session, "run", spoiled)
    with pytest.raises(RunError, match=rf"^{graph}\.onnx computed no numbers"):
        engine.ask(np.sin(np.arange(16_000) / 7).astype(np.float32), "asr", GREEDY)


@pytest.mark.parametrize("n", [1600, 4001, 15_999, 16_000, 16_001, 480_000])
def test_clip_of_any_length_is_heard_in_88_tokens(engine: Engine, n: int) -> None:
    """Trap 13 and 21: shorter than 1 s is padded, and the number of audio tokens does not depend on the clip."""
    clip = np.sin(np.arange(n) / 7).astype(np.float32) * 0.3
    answer = engine.ask(clip, "asr", Generation(max_new_tokens=1))
    assert [s.timings.n_audio_tokens for s in answer.segments] == [88]


def test_padded_second_is_what_the_model_hears(engine: Engine) -> None:
    clip = np.sin(np.arange(9000) / 7).astype(np.float32) * 0.3
    padded = np.pad(clip, (0, 7000))
    np.testing.assert_array_equal(engine.encode(clip).audio_tokens, engine.encode(padded).audio_tokens)


def test_adapter_at_the_merged_scale_is_the_merged_model(golden_bundle: Path, golden: Path) -> None:
    jfk = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"]

    def ids(scale: float | None) -> tuple[int, ...]:
        with load(golden_bundle, EngineOptions(llm=LlmOptions(lora_scale=scale))) as opened:
            return opened.ask(jfk, "asr", GREEDY).segments[0].token_ids

    assert ids(4.0) == ids(None)
    assert ids(0.0) != ids(None)


def test_tokenizer_of_another_model_is_refused(golden_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))
    document = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    document["prompt"]["prefix_ids"][3] += 1
    (bundle / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match=r"vocabulary|tokeniz|prefix"):
        load(bundle)


def test_every_task_has_a_prompt() -> None:
    assert len(TASKS) == 25
    assert prompt_for("slot_filling:room", TASKS) == "According to the speech, what is the room?"
    assert prompt_for("What did she say: yes or no?", TASKS) == "What did she say: yes or no?"
    for wrong in ("slot_filling", "slot_filling: ", "asr:en", "", "  "):
        with pytest.raises(InputError):
            prompt_for(wrong, TASKS)


def test_a_prompt_is_resolved_once() -> None:
    """`QA:asr` asks "asr", though that is a task's name too, however often it is resolved."""
    asked = prompt_for("QA:asr", TASKS)
    assert asked == "asr" and prompt_for(asked, TASKS) is asked
    assert prompt_for(str(asked), TASKS) == TASKS["asr"]


def test_a_prompt_that_says_a_tasks_name_is_asked_as_it_is(
    golden_bundle: Path, engine: Engine, beep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = engine.ask(beep, "QA:asr", Generation(max_new_tokens=1))
    assert answer.prompt == answer.segments[0].prompt == "asr"
    *_, final = Chat(engine, beep).ask("QA:asr", Generation(max_new_tokens=1))
    assert isinstance(final, Final) and final.prompt == "asr"
    asked = ("ask", beep, "QA:asr", "--bundle", golden_bundle, "--max-new-tokens", 1, "--json")
    assert auricle(*asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["prompt"] == said["segments"][0]["prompt"] == "asr"


def write_clip(path: Path, samples: np.ndarray, sample_rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture
def beep(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "beep.wav", np.sin(np.arange(32_000) / 5) * 0.4)


def auricle(*words: object) -> int:
    return main([str(word) for word in words])


def test_ask_prints_the_answer(golden_bundle: Path, beep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert auricle("ask", beep, "asr", "--bundle", golden_bundle, "--max-new-tokens", 3, "--timings") == 0
    said = capsys.readouterr()
    assert said.out.strip()
    assert "first token after" in said.err


def test_ask_as_json(golden_bundle: Path, beep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert auricle("ask", beep, "asr", "--bundle", golden_bundle, "--max-new-tokens", 3, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["prompt"] == TASKS["asr"]
    assert len(answer["segments"][0]["token_ids"]) == 3
    assert answer["complete"] is True


def test_same_seed_same_words(golden_bundle: Path, beep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 26: the reference once sampled by default; here sampling is asked for, and a seed repeats it."""
    ask = ("ask", beep, "asr", "--bundle", golden_bundle, "--max-new-tokens", 6)
    said: list[str] = []
    for options in ((), (), ("--temperature", 1.5, "--seed", 5), ("--temperature", 1.5, "--seed", 5)):
        assert auricle(*ask, *options) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert said[2] == said[3]
    assert said[0] != said[2]


def test_each_segment_of_a_long_clip_has_its_time(
    golden_bundle: Path, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spinners: list[str]
) -> None:
    jfk = np.load(golden / "salmonn-tiny" / "jfk_11s.npz")["pcm_float32"]
    clip = np.concatenate([jfk, np.zeros(16_000, np.float32)] * 4)
    ask = ("ask", write_clip(tmp_path / "long.wav", clip), "asr", "--bundle", golden_bundle, "--max-new-tokens", 2)
    assert auricle(*ask) == 0
    lines = capsys.readouterr().out.splitlines()
    spans = [re.match(r"\[(\d+):(\d\d\.\d)-(\d+):(\d\d\.\d)\] .", line) for line in lines]
    times = [(int(s[1]) * 60 + float(s[2]), int(s[3]) * 60 + float(s[4])) for s in spans if s]
    assert len(times) == len(lines) >= 2
    assert times[0][0] == 0
    assert times[-1][1] == pytest.approx(len(clip) / 16_000, abs=0.1)
    assert [end for _, end in times[:-1]] == [start for start, _ in times[1:]]
    waiting = ["start", "stop"]
    assert [step for step, before in zip(spinners, ["", *spinners], strict=False) if step != before] == waiting * len(
        times
    )


def test_one_segment_is_a_plain_line(golden_bundle: Path, beep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert auricle("ask", beep, "asr", "--bundle", golden_bundle, "--max-new-tokens", 2) == 0
    assert not capsys.readouterr().out.startswith("[0:")


@pytest.fixture
def spinners(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the listening spinner was told, in order."""
    told: list[str] = []

    class Spinner:
        def __enter__(self) -> Spinner:
            return self

        def __exit__(self, *_: object) -> None: ...
        def start(self) -> None:
            told.append("start")

        def stop(self) -> None:
            told.append("stop")

    monkeypatch.setattr("auricle.runtime.cli.answers.waiting", lambda _text: Spinner())
    return told


TIMINGS = Timings({"whisper": 1.0}, 1.0, 1.0, 1.0, 88, 2)
HALF = (
    SegmentStarted(0.0, 20.0, alone=False),
    Piece("all of it"),
    Final(0.0, 20.0, "all of it", (5, 6), TIMINGS),
    SegmentStarted(20.0, 45.0, alone=False),
    Piece("half of"),
    Piece(" this"),
)


@pytest.fixture(params=[KeyboardInterrupt(), RunError("no memory"), AudioError("the file is cut")])
def stopped_half_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BaseException:
    """Every clip is answered up to the middle of its second segment, and what stops it there."""

    def stream(*_: object) -> Iterator[object]:
        yield from HALF
        raise request.param

    monkeypatch.setattr(Engine, "stream", stream)
    monkeypatch.setattr(caption_command, "stream_in_batches", stream)
    return request.param


def status_of(stopped: BaseException) -> int:
    return stopped.exit_status if isinstance(stopped, AuricleError) else 130


def test_stopped_ask_keeps_what_was_said(
    golden_bundle: Path, beep: Path, capsys: pytest.CaptureFixture[str], stopped_half_way: BaseException
) -> None:
    assert auricle("ask", beep, "asr", "--bundle", golden_bundle) == status_of(stopped_half_way)
    assert capsys.readouterr().out == "[0:00.0-0:20.0] all of it\n[0:20.0-0:45.0] half of this\n"
    assert auricle("ask", beep, "asr", "--bundle", golden_bundle, "--json") == status_of(stopped_half_way)
    answer = json.loads(capsys.readouterr().out)
    assert answer["complete"] is False
    assert answer["text"] == "all of it\nhalf of this"
    assert [segment["text"] for segment in answer["segments"]] == ["all of it"]


def test_stopped_captions_leave_an_older_file_alone(
    golden_bundle: Path,
    beep: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stopped_half_way: BaseException,
) -> None:
    caption = ("caption", beep, "--bundle", golden_bundle, "--format", "jsonl")
    (tmp_path / "beep.jsonl").write_text("older")
    assert auricle(*caption, "--out", tmp_path) == status_of(stopped_half_way)
    assert str(tmp_path / "beep.partial.jsonl") in capsys.readouterr().err
    assert (tmp_path / "beep.jsonl").read_text() == "older"
    rows = (tmp_path / "beep.partial.jsonl").read_text(encoding="utf-8")
    assert [(json.loads(row)["text"], json.loads(row)["finish_reason"]) for row in rows.splitlines()] == [
        ("all of it", "eos"),
        ("half of this", "end"),
    ]
    assert auricle(*caption) == status_of(stopped_half_way)
    assert capsys.readouterr().out == rows


def test_json_lines_name_their_clip(
    golden_bundle: Path, beep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copy(beep, tmp_path / "other.wav"))
    words = ("caption", beep, other, "--bundle", golden_bundle, "--format", "jsonl", "--max-new-tokens", 2)
    assert auricle(*words) == 0
    rows = [json.loads(row) for row in capsys.readouterr().out.splitlines()]
    assert [row["audio"] for row in rows] == [str(beep), str(other)]


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "jsonl"])
def test_captions_go_to_files(golden_bundle: Path, beep: Path, tmp_path: Path, format: str) -> None:
    out = tmp_path / "captions"
    status = auricle(
        *("caption", beep, "--bundle", golden_bundle, "--format", format),
        *("--out", out, "--max-new-tokens", 3),
    )
    assert status == 0
    assert (out / f"beep.{format}").read_text(encoding="utf-8").strip()


def test_one_bad_clip_does_not_stop_the_others(
    golden_bundle: Path, beep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"not audio at all")
    status = auricle("caption", bad, beep, "--bundle", golden_bundle, "--max-new-tokens", 2, "--out", tmp_path / "out")
    assert status == 2
    assert (tmp_path / "out" / "beep.txt").exists()
    assert "bad.wav" in capsys.readouterr().err


def wrong_words(beep: Path, tmp_path: Path) -> list[tuple[tuple[object, ...], str]]:
    """Command lines that are refused, and a word of the sentence that says why."""
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    silent = write_clip(tmp_path / "silent.wav", np.zeros(16_000))
    return [
        (("ask", tmp_path / "no.wav", "asr"), "no.wav"),
        (("ask", tmp_path, "asr"), str(tmp_path)),
        (("ask", text, "asr"), "notes.txt"),
        (("ask", silent, "asr"), "silent"),
        (("ask", beep, ""), "empty"),
        (("ask", beep, "slot_filling"), "slot_filling"),
        (("ask", beep, "audiocaption", "--max-new-tokens", 100_000), "100"),
        (("ask", beep, "asr", "--beams", 1000), "beams"),
        (("ask", beep, "asr", "--beams", 2, "--temperature", 1), "temperature"),
        (("ask", beep, "asr", "--provider", "coreml"), "coreml"),
        (("ask", beep, "x " * 3000), "tokens"),
    ]


@pytest.mark.parametrize("number", range(11))
def test_wrong_input_is_one_sentence_and_status_2(
    golden_bundle: Path, beep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    words, said = wrong_words(beep, tmp_path)[number]
    assert auricle(*words, "--bundle", golden_bundle) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("auricle: ")
    assert err.count("\n") == 1
    assert said in err


def test_two_clips_of_one_name_are_refused_before_anything_is_written(
    golden_bundle: Path, beep: Path, tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    twin = Path(shutil.copy(beep, tmp_path / "again" / "beep.wav"))
    assert auricle("caption", beep, twin, "--bundle", golden_bundle, "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_lora_scale_needs_an_adapter(golden_bundle: Path, beep: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))
    document: dict[str, Any] = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    document["llm"]["adapter"] = None
    document["files"] = [entry for entry in document["files"] if entry["path"] != "lora.gguf"]
    (bundle / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    assert auricle("ask", beep, "asr", "--bundle", bundle, "--lora-scale", 2) == 2


@pytest.mark.parametrize(
    ("made", "wanted", "error"),
    [((), (), 0.0), ((5,), (), 1.0), ((), (5, 6), 1.0), ((5, 6), (5, 6), 0.0), ((5, 7), (5, 6), 0.5)],
)
def test_the_first_other_token_tells(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, made: tuple[int, ...], wanted: tuple[int, ...], error: float
) -> None:
    """A model that finds no words in the clip answers with none."""
    check = engine.bundle.manifest.self_check
    assert check
    monkeypatch.setattr(self_check, "greedy_ids", lambda *_: made)
    assert self_check.run_self_check(engine, replace(check, token_ids=wanted))[-1].error == error


def test_verify_runs_the_exporters_check(
    golden_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auricle("verify", golden_bundle, "--run") == 0
    assert "audio_tokens" in capsys.readouterr().out
    bundle = Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))
    document = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    values = document["self_check"]["stages"][1]["values"]
    document["self_check"]["stages"][1]["values"] = [value * 1.01 for value in values]
    (bundle / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    assert auricle("verify", bundle, "--run") == 1
    assert "audio" in capsys.readouterr().err
