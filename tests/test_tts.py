"""Speaking answers aloud: cut into sentences, spoken in order, silenced at once, and what a broken voice does."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from auricle.models.errors import InputError, RunError
from auricle.runtime.assistant_options import AssistantOptions
from auricle.runtime.tts import Sentences, Speaker
from voices import say, wait_for


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["Hel", "lo there. How", " are you?", " Fi", "ne!"], ["Hello there.", "How are you?", "Fine!"]),
        (["It is 3.5 m", ". wide"], ["It is 3.5 m.", "wide"]),
        (["one\ntwo\n\n", " \n"], ["one", "two"]),
        (["Wait... what?! No."], ["Wait...", "what?!", "No."]),
        (["你好。你是谁？", "好"], ["你好。", "你是谁？", "好"]),  # noqa: RUF001
        ([], []),
    ],
)
def test_text_is_cut_into_sentences(pieces: list[str], expected: list[str]) -> None:
    sentences = Sentences()
    assert [*(s for piece in pieces for s in sentences.add(piece)), *sentences.finish()] == expected


class TestSpeaker:
    def test_sentences_are_spoken_in_order(self, spoken: Path) -> None:
        speaker = Speaker(say(spoken, "sleep 0.02"))
        for n in range(5):
            speaker.say(f"Sentence {n}.")
        assert speaker.busy
        assert speaker.finish(20)
        assert not speaker.busy
        assert spoken.read_text().splitlines() == [f"Sentence {n}." for n in range(5)]
        speaker.close()
        speaker.close()

    def test_stop_kills_what_is_spoken_and_forgets_the_rest(self, spoken: Path) -> None:
        speaker = Speaker(say(spoken, "sleep 60"))
        for n in range(3):
            speaker.say(f"Sentence {n}.")
        wait_for(lambda: spoken.exists() and spoken.read_text().endswith("\n"))
        started = time.monotonic()
        speaker.stop()
        assert speaker.finish(5)
        speaker.close()
        assert time.monotonic() - started < 10
        assert spoken.read_text() == "Sentence 0.\n"

    def test_it_speaks_again_after_a_stop(self, spoken: Path) -> None:
        speaker = Speaker(say(spoken))
        speaker.stop()
        speaker.say("Again.")
        assert speaker.finish(20)
        assert spoken.read_text() == "Again.\n"
        speaker.close()

    def test_closing_ends_process_and_thread(self, spoken: Path) -> None:
        speaker = Speaker(say(spoken, "sleep 60"))
        speaker.say("For ever.")
        wait_for(lambda: spoken.exists() and spoken.read_text().endswith("\n"))
        speaker.close()
        assert not any(thread.name == "auricle-speaker" for thread in threading.enumerate())

    @pytest.mark.parametrize("command", ["no-such-voice -v en", "", "'half"])
    def test_a_missing_command_is_a_sentence_at_the_start(self, command: str) -> None:
        with pytest.raises(InputError, match="the command to speak"):
            AssistantOptions(speak=command)

    def test_a_command_that_fails_says_why(self) -> None:
        speaker = Speaker("sh -c 'echo no sound card >&2; exit 3'")
        speaker.say("Hello.")
        with pytest.raises(RunError, match=r"sh does not speak \(status 3: no sound card\)"):
            speaker.finish(20)
        with pytest.raises(RunError, match="no sound card"):
            speaker.say("Hello?")
        speaker.close()

    def test_what_a_command_leaves_running_is_not_waited_for(self) -> None:
        started = time.monotonic()
        speaker = Speaker("sh -c 'sleep 8 & echo no sound card >&2; exit 3'")
        speaker.say("Hello.")
        with pytest.raises(RunError, match=r"status 3: no sound card"):
            speaker.finish(20)
        speaker.close()
        assert time.monotonic() - started < 6

    @pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
    def test_a_process_that_ends_while_it_is_silenced_does_no_harm(
        self, spoken: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed: list[int] = []
        killpg = os.killpg

        def kill_and_complain(group: int, number: int) -> None:
            killed.append(group)
            killpg(group, number)
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "killpg", kill_and_complain)
        speaker = Speaker(say(spoken, "sleep 60"))
        speaker.say("Hello.")
        wait_for(lambda: spoken.exists() and spoken.read_text().endswith("\n"))
        speaker.stop()
        assert len(killed) == 1
        speaker.close()
        ended = Speaker(say(spoken, "sleep 0.5"))
        ended.say("Hello.")
        wait_for(lambda: spoken.read_text().count("\n") == 2)
        monkeypatch.setattr(subprocess.Popen, "poll", lambda _process: 0)  # pyright: ignore
        ended.close()
        assert len(killed) == 1
