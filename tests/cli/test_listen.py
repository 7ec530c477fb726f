"""`auricle listen` from the command line: sources, keys, signals, the file it writes, what it refuses."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from auricle.models.audio import SAMPLE_RATE
from auricle.models.errors import InputError, RunError
from auricle.models.families.salmonn import TASKS
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.cli.live import listen as listen_module
from auricle.runtime.cli.live import session
from auricle.runtime.cli.live.keyboard import Keys, Menu, keys_work
from auricle.runtime.engine import Engine, load
from auricle.runtime.live.captions import LiveOptions
from auricle.runtime.output.transcript import Transcript
from auricle.runtime.sources.playback import FilePlayback
from auricle.runtime.sources.portaudio import InputDevice
from auricle.runtime.sources.source import SourceItem

CLIP = "shopping.wav"
SAID = "add ten potatoes to my shopping list"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load() as opened:
        yield opened


@pytest.fixture
def clip(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spoken clip; every command of the test uses one engine."""
    monkeypatch.setattr(listen_module, "open_engine", lambda _arguments: nullcontext(engine))
    return engine.bundle.path("clips") / CLIP


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_arguments: object) -> None:
        raise AssertionError("a model was opened for nothing")

    monkeypatch.setattr(listen_module, "open_engine", refuse)


def listen(*words: object) -> int:
    return main(["listen", *map(str, words)])


def rows(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_plain_lines_and_a_file(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.srt"
    assert listen(clip, "--pace", "fast", "--out", out) == 0
    shown = capsys.readouterr()
    assert SAID in shown.out and shown.out.count("\n") == 1 and shown.err == ""
    with av.open(str(out)) as file:
        assert [bytes(packet).decode() for packet in file.demux() if packet.size] == [SAID]
    assert listen(clip, "--pace", "fast", "--out", out) == 2
    assert "holds something already" in capsys.readouterr().err


def test_events_as_json_and_the_same_in_the_file(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.jsonl"
    asked = ("--also", "slot_filling:room", "--also", "audiocaption", "--hop-ms", 1000, "--context", "short")
    assert listen(clip, "--pace", "fast", "--json", "--out", out, *asked) == 0
    shown = rows(capsys.readouterr().out)
    assert [row["event"] for row in shown] == ["SpeechStarted", "Caption", "Caption", "Final", "SessionEnded"]
    assert [row for row in shown if row["event"] in ("Final", "SessionEnded")] == rows(out.read_text())
    assert [prompt for prompt, _ in shown[-2]["also"]] == [  # pyright: ignore
        "According to the speech, what is the room?",
        "Please describe the audio.",
    ]


@pytest.mark.parametrize("format", ["s16le", "f32le"])
def test_raw_sound_from_a_pipe(
    clip: Path, format: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waveform = read_audio(clip)
    stereo = np.repeat(waveform[:, None], 2, axis=1)
    raw = (stereo * 32767).astype("<i2").tobytes() if format == "s16le" else stereo.astype("<f4").tobytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw), isatty=lambda: False))
    assert listen("-", "--rate", SAMPLE_RATE, "--channels", 2, "--sample-format", format) == 0
    assert SAID in capsys.readouterr().out


class Breaking:
    """A source that does something after the clip was read."""

    realtime = False

    def __init__(self, clip: Path, then: Callable[[], None], closes: bool = True) -> None:
        self._playback, self._then, self._closes, self.closed = FilePlayback(clip, "fast"), then, closes, False

    def read(self, timeout_s: float) -> list[SourceItem] | None:
        if self._closes and self.closed:
            return None
        heard = self._playback.read(timeout_s)
        if heard is None:
            self._then()
            time.sleep(timeout_s)
        return heard or []

    def close(self) -> None:
        self.closed = True


def test_what_was_heard_is_finished_when_the_source_breaks(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unplug() -> None:
        raise RunError("the pipe broke: mend it")

    monkeypatch.setattr(listen_module, "open_source", lambda _arguments: Breaking(clip, unplug))
    out = tmp_path / "a.jsonl"
    assert listen("--out", out) == 1
    shown = capsys.readouterr()
    assert SAID in shown.out and shown.err == "auricle: the pipe broke: mend it\n"
    assert [row["event"] for row in rows(out.read_text())] == ["Final", "SessionEnded"]


@pytest.fixture
def signals_arrive() -> Iterator[None]:
    """A process that a shell started in the background ignores SIGINT."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.usefixtures("signals_arrive")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_session_and_finishes_the_segment(
    clip: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    sent: list[int] = []

    def once() -> None:
        if not sent:
            sent.append(number)
            signal.raise_signal(number)

    monkeypatch.setattr(listen_module, "open_source", lambda _arguments: Breaking(clip, once))
    out = tmp_path / "a.vtt"
    assert listen("--out", out) == 0
    assert SAID in capsys.readouterr().out and SAID in out.read_text()
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("signals_arrive")
def test_a_second_interrupt_does_not_wait(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Breaking(clip, lambda: signal.raise_signal(signal.SIGINT), closes=False)
    monkeypatch.setattr(listen_module, "open_source", lambda _arguments: source)
    assert listen("--out", tmp_path / "a.srt") == 130
    assert capsys.readouterr().err == "auricle: stopped\n" and source.closed
    assert os.listdir(tmp_path) == []  # nothing was said for certain


def test_the_microphone_records_before_the_model_opens(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def microphone(device: str | None = None) -> FilePlayback:
        order.append(f"microphone {device}")
        return FilePlayback(clip, "fast")

    opened = listen_module.open_engine

    def engine(arguments: object) -> object:
        order.append("engine")
        return opened(arguments)  # pyright: ignore

    monkeypatch.setattr(session, "Microphone", microphone)
    monkeypatch.setattr(listen_module, "open_engine", engine)
    assert listen("--device", "usb") == 0
    assert order == ["microphone usb", "engine"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("{clip} --device 1", "--device is for a microphone, but sound comes from a sound file: leave it out"),
        ("--pace fast", "--pace is for a sound file, but sound comes from a microphone: leave it out"),
        ("{clip} --rate 8000", "--rate is for raw PCM"),
        ("{clip} --sample-format s16le", "--sample-format is for raw PCM"),
        ("{clip} --no-vad --threshold 0.4", "--threshold is for the speech gate, which --no-vad leaves out"),
        ("{clip} --settle nan", "--settle nan is no number to work with"),
        ("{clip} --max-segment-s inf", "--max-segment-s inf is no number to work with"),
        ("{clip} --hop-ms 1", "hop_ms 1 must be 50 to 30000"),
        ("{clip} --agreement 0", "agreement 0 must be at least 1"),
        ("{clip} --threshold 1", "threshold 1.0 must lie between 0 and 1"),
        ("{clip} --task slot_filling", "has a blank to fill"),
        ("{clip} --also asr:x", "takes nothing after a colon"),
        ("{clip} --out a.doc", "name it after its format"),
        ("{clip} --out no/a.srt", "no/a.srt cannot be written"),
        ("missing.wav", "missing.wav"),
    ],
)
@pytest.mark.usefixtures("no_engine")
def test_what_is_refused_before_anything_is_opened(
    words: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = Path(__file__).parents[1] / "golden" / "jfk.wav"
    assert listen(*(word.format(clip=clip) for word in words.split())) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("no_engine")
def test_a_file_that_cannot_be_used_leaves_no_transcript(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    assert listen(tmp_path / "a.wav", "--out", tmp_path / "a.vtt") == 2
    assert capsys.readouterr().err.count("\n") == 1 and os.listdir(tmp_path) == ["a.wav"]


@pytest.mark.usefixtures("no_engine")
def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = [InputDevice(3, "USB mic", "ALSA", 1, 48_000, False), InputDevice(12, "Built-in", "ALSA", 2, 44_100, True)]
    monkeypatch.setattr(session, "list_devices", lambda: found)
    assert listen("--list-devices") == 0
    assert capsys.readouterr().out.splitlines() == [
        "   3  USB mic, ALSA (1 channels, 48000 Hz)",
        "* 12  Built-in, ALSA (2 channels, 44100 Hz)",
    ]
    assert listen("--list-devices", "--json") == 0
    assert [row["number"] for row in rows(capsys.readouterr().out)] == [3, 12]
    found.clear()
    assert listen("--list-devices") == 1
    assert "there is no microphone" in capsys.readouterr().err


class FakeLive:
    tasks = TASKS

    trained_scale = 2.0

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.stopped = 0
        self.lora_scale = 2.0

    def set_lora_scale(self, scale: float) -> None:
        if scale > 2.3:
            raise InputError("no adapter")
        self.lora_scale = scale

    def ask(self, prompt: str, also: tuple[str, ...] = ()) -> None:
        self.asked.append((prompt, also))

    def stop(self) -> None:
        self.stopped += 1


def test_keys_change_the_task_and_quit() -> None:
    live, notices = FakeLive(), list[str]()
    view = SimpleNamespace(notice=notices.append)
    menu = Menu(live, view, LiveOptions(prompt="What is this?", also=("asr",)))  # pyright: ignore
    assert menu.tasks["1"] == "What is this?" and menu.tasks["2"] == "asr" and "QA" not in menu.tasks.values()
    for key in "2?1 \x00q":
        menu.press(key)
    assert live.asked == [("asr", ("asr",)), ("What is this?", ("asr",))] and live.stopped == 1
    assert len(notices) == 3 and notices[1].splitlines()[1] == "2  asr" and notices[1].endswith("q  quit")
    assert not set(menu.tasks) & set("qh?")


def test_keys_change_the_loras_scale() -> None:
    """A tenth of the trained scale a key; where it cannot be, that is said and nothing changes."""
    live, notices = FakeLive(), list[str]()
    menu = Menu(live, SimpleNamespace(notice=notices.append), LiveOptions())  # pyright: ignore
    for key, scale in (("-", 1.8), ("-", 1.6), ("+", 1.8), ("+", 2.0), ("+", 2.2), ("+", 2.2)):
        menu.press(key)
        assert live.lora_scale == pytest.approx(scale)
    assert notices[0] == "from the next segment on: LoRA scale 1.8" and notices[-1] == "no adapter"
    assert not set(menu.tasks) & set("+-")


posix = pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")


@posix
def test_keys_come_one_by_one_and_the_terminal_is_given_back() -> None:
    import termios

    master, slave = os.openpty()
    pressed: list[str] = []
    enough = threading.Event()
    try:
        before = termios.tcgetattr(slave)
        with open(slave, closefd=False) as terminal:

            def press(key: str) -> None:
                pressed.append(key)
                if key == "q":
                    enough.set()

            with Keys(terminal, press):
                assert termios.tcgetattr(slave) != before
                for keys in (b"1", b"\x1b[A", "ü".encode(), b"q"):
                    os.write(master, keys)
                    time.sleep(0.3)
                assert enough.wait(10)
            assert not keys_work(terminal)  # not the terminal of this test
        assert pressed == ["1", "ü", "q"] and termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_a_pipe_has_no_keys() -> None:
    assert not keys_work(io.StringIO())


def test_a_file_needs_no_standard_input(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert listen(clip, "--pace", "fast") == 0
    assert SAID in capsys.readouterr().out


@pytest.mark.usefixtures("no_engine")
def test_raw_sound_needs_a_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert listen("-") == 2
    assert capsys.readouterr().err.startswith("auricle: - reads raw PCM from standard input, which is closed")


@pytest.fixture
def long_clip(engine: Engine, tmp_path: Path) -> Path:
    """The same sentence for two and a half minutes."""
    waveform = np.tile(read_audio(engine.bundle.path("clips") / CLIP), 60)
    path = tmp_path / "long.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((waveform * 32767).astype("<i2").tobytes())
    return path


def in_a_terminal(*words: object) -> tuple[int, int]:
    """The whole command in a terminal of its own: its process and our end of the terminal."""
    import pty

    child, terminal = pty.fork()
    if not child:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "auricle.runtime", "listen", *map(str, words)])
    return child, terminal


@posix
def test_in_a_terminal_there_are_keys(long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    child, terminal = in_a_terminal(long_clip, "--out", out)
    try:
        until(terminal, b"q quits")
        os.write(terminal, b"?")
        until(terminal, b"speech_separation")
        until(terminal, b"potatoes")
        os.write(terminal, b"q")
        until(terminal, b"s of sound")
        until(terminal, None)
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    written = rows(out.read_text())
    assert written[-1]["event"] == "SessionEnded" and "potatoes" in str(written[0]["text"])


@posix
def test_a_terminal_that_is_closed_leaves_a_complete_file(long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    child, terminal = in_a_terminal(long_clip, "--out", out)
    try:
        until(terminal, b"potatoes")
    finally:
        os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    written = rows(out.read_text())
    assert written[-1]["event"] == "SessionEnded" and "potatoes" in str(written[0]["text"])


def test_a_reader_that_stops_leaves_a_complete_file(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    out = tmp_path / "a.jsonl"
    assert listen(clip, "--pace", "fast", "--out", out) == 1
    assert capsys.readouterr().err.startswith("auricle: standard output takes no more (No space left on device)")
    assert [row["event"] for row in rows(out.read_text())] == ["Final", "SessionEnded"]


def test_a_file_that_takes_no_more_costs_nothing(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_transcript: Transcript, _event: object) -> None:
        raise RunError("a.srt takes no more (No space left on device): make room")

    monkeypatch.setattr(Transcript, "add", full)
    assert listen(clip, "--pace", "fast", "--json", "--out", tmp_path / "a.srt") == 1
    shown = capsys.readouterr()
    assert [row["event"] for row in rows(shown.out)][-2:] == ["Final", "SessionEnded"] and SAID in shown.out
    notice, end = shown.err.splitlines()
    assert "captions are shown here alone: a.srt takes no more" in notice and end.startswith("auricle: a.srt takes")


def until(terminal: int, wanted: bytes | None, timeout_s: float = 60.0) -> None:
    """Read what the terminal shows until then; None: until the program ends."""
    import select

    shown, deadline = b"", time.monotonic() + timeout_s
    while wanted is None or wanted not in shown:
        assert time.monotonic() < deadline, f"{wanted!r} is not in {shown[-2000:]!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += (more := os.read(terminal, 4096))
            except OSError:  # Linux's end of a terminal
                more = b""
            if not more:
                assert wanted is None, f"{wanted!r} is not in {shown[-2000:]!r}"
                return


@posix
def test_nothing_heavy_waits_for_help() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "auricle.runtime", "listen", "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = {line.rsplit("|", 1)[-1].strip() for line in run.stderr.splitlines()}
    assert not loaded & {"numpy", "rich", "onnxruntime", "llama_cpp", "av", "soxr", "sounddevice"}
