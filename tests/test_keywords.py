"""Words that may occur: how a list is read, where it stands in the prompt, and what a changed one costs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.errors import InputError
from auricle.models.families.salm import TASKS
from auricle.models.prompt import MAX_KEYWORDS, read_keywords
from auricle.runtime.__main__ import main
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import Final, KeywordsRead
from auricle.runtime.keywords import Keywords
from auricle.runtime.live.captions import LiveOptions, captions
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.sources.playback import FilePlayback

WORDING = "Following words may occur in audio: ['Kubernetes' 'Zhang Wei'] "


@pytest.fixture(scope="module")
def engine(salm_bundle: Path) -> Iterator[Engine]:
    with load(salm_bundle, EngineOptions(llm=LlmOptions(n_threads=1))) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_words(engine: Engine) -> Iterator[None]:
    yield
    engine.keywords = ()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["Kubernetes, Zhang  Wei"], ("Kubernetes", "Zhang Wei")),
        (["b,a", "c\n d ,,C#\n"], ("b", "a", "c", "d", "C#")),
        (["Symphony #9, x", "#metoo"], ("Symphony #9", "x", "#metoo")),
        (["Anna, Bert, anna, ANNA"], ("Anna", "Bert")),
        (["O'Brien, naïve, 章伟"], ("O'Brien", "naïve", "章伟")),
        (["", " , \n"], ()),
    ],
)
def test_lists_are_read_in_their_order_each_word_once(texts: list[str], words: tuple[str, ...]) -> None:
    assert read_keywords(texts) == words


def test_comments_are_of_files_alone() -> None:
    assert read_keywords(["b #1"], "c # or k\n# no word\n d ,,C#\n") == ("b #1", "c", "d", "C#")


@pytest.mark.parametrize("word", ["[x]", 'say "a"', "{prompt}", "<|audioplaceholder|>"])
def test_a_word_that_would_end_the_list_is_refused(engine: Engine, word: str) -> None:
    with pytest.raises(InputError, match="belongs to the list"):
        read_keywords([word])
    with pytest.raises(InputError, match="belongs to the list"):
        engine.keywords = (word,)


def test_what_is_no_list_of_words_is_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="a list of words"):
        engine.keywords = "abc"
    with pytest.raises(InputError, match="not text"):
        read_keywords(["caf\udce9"])


def test_words_stand_before_the_prompt(engine: Engine) -> None:
    engine.keywords = ("Kubernetes", "Zhang Wei")
    (before, after), prompts = engine.llm.prompts.around(TASKS["asr"]), engine.llm.prompts
    text = f"<|im_start|>user\n{WORDING}Transcribe the following: "
    assert list(before) == prompts.tokenize(text)
    engine.keywords = ()
    assert engine.llm.prompts.around(TASKS["asr"])[1] == after


def test_without_a_boost_salmonn_hears_of_them_before_the_audio(golden_bundle: Path) -> None:
    with load(golden_bundle, EngineOptions(llm=LlmOptions(n_threads=1, keyword_boost=0.0))) as salmonn:
        plain = salmonn.llm.prompts.around("What is said?")
        salmonn.keywords = ("Kubernetes", "Zhang Wei")
        before, after = salmonn.llm.prompts.around("What is said?")
        assert list(before) == [1, *salmonn.llm.prompts.tokenize(f"USER: {WORDING}<Speech>")]
        assert after == plain[1]


def test_more_than_the_model_reads_are_left_out_and_named(engine: Engine) -> None:
    words = [f"word{n}" for n in range(MAX_KEYWORDS + 3)]
    read = Keywords([",".join(words)]).use(engine)
    assert read is not None and read.left_out == ("word50", "word51", "word52")
    assert engine.keywords == tuple(words[:MAX_KEYWORDS])
    with pytest.raises(InputError, match="53 keywords"):
        engine.keywords = words


def test_a_changed_list_costs_one_prefill_and_no_more(
    engine: Engine, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids that are read again: from the first word that differs on, once; the next question finds all of it kept."""
    audio = np.load(golden / "salm-tiny" / "noise_1s.npz")["audio_tokens"]
    fed: list[int] = []
    feed = engine.llm.feed

    def counted(ids: Sequence[int], every: bool = False) -> Any:
        fed.append(len(ids))
        return feed(ids, every)

    monkeypatch.setattr(engine.llm, "feed", counted)

    def ask() -> int:
        """Ids fed before the audio."""
        fed.clear()
        engine.llm.prefill(audio, TASKS["asr"], Generation(4))
        return sum(fed) - len(engine.llm.prompts.around(TASKS["asr"])[1])

    engine.keywords = ("Kubernetes", "Prometheus")
    ask()
    assert ask() == 0
    engine.keywords = ("Kubernetes", "Grafana")
    before = len(engine.llm.prompts.around(TASKS["asr"])[0])
    assert 0 < ask() < before - 10
    assert ask() == 0


class TestFile:
    def test_it_is_read_again_when_it_changes(self, engine: Engine, tmp_path: Path) -> None:
        file = tmp_path / "words.txt"
        file.write_text("Anna\nBert\n")
        keywords = Keywords(["Cleo"], file)
        assert keywords.use(engine) == KeywordsRead(0.0, ("Cleo", "Anna", "Bert"), (), None)
        assert keywords.use(engine, 1.0) is None
        rewrite(file, "Dora")
        assert keywords.use(engine, 2.0) == KeywordsRead(2.0, ("Cleo", "Dora"), (), None)
        assert engine.keywords == ("Cleo", "Dora")

    def test_a_file_that_is_gone_or_wrong_later_changes_nothing_and_is_said_once(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        file = tmp_path / "words.txt"
        file.write_text("Anna")
        keywords = Keywords((), file)
        keywords.use(engine)
        file.unlink()
        read = keywords.use(engine, 3.0)
        assert read is not None and read.problem and "cannot be read" in read.problem and read.words == ("Anna",)
        assert keywords.use(engine, 4.0) is None
        rewrite(file, "[")
        read = keywords.use(engine, 5.0)
        assert read is not None and read.problem and "belongs to the list" in read.problem
        assert keywords.use(engine, 5.5) is None
        rewrite(file, "Bert!")
        assert keywords.use(engine, 6.0) == KeywordsRead(6.0, ("Bert!",), (), None)

    def test_at_the_start_it_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot be read"):
            Keywords((), tmp_path / "absent.txt")
        (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match="not UTF-8"):
            Keywords((), tmp_path / "bytes.txt")

    def test_words_without_room_are_refused_at_the_start_and_said_later(self, golden: Path, tmp_path: Path) -> None:
        """The demo's 512 positions do not hold fifty long words and a question."""
        file, long = tmp_path / "words.txt", "\n".join(f"Constantinopolitanischer{n}" for n in range(50))
        with load(None, EngineOptions(llm=LlmOptions(n_threads=1, keyword_boost=0.0))) as demo:
            clip = demo.bundle.path("clips") / "command.wav"
            options = LiveOptions(keywords=Keywords([long]))
            with pytest.raises(InputError, match="fit"):
                next(captions(FilePlayback(clip, pace="fast"), demo, options))
            assert demo.keywords == ()
            file.write_text("Anna")
            options = LiveOptions(keywords=Keywords((), file))
            events = captions(FilePlayback(clip, pace="fast"), demo, options)
            assert next(events) == KeywordsRead(0.0, ("Anna",), (), None)
            rewrite(file, long)
            read = [event for event in events if isinstance(event, KeywordsRead)]
            assert len(read) == 1 and read[0].words == ("Anna",) and "fit" in (read[0].problem or "")

    def test_one_list_serves_two_engines(self, engine: Engine, salm_bundle: Path) -> None:
        words = Keywords(["Anna"])
        words.use(engine)
        with load(salm_bundle, EngineOptions(llm=LlmOptions(n_threads=1))) as other:
            assert words.use(other) is not None and other.keywords == ("Anna",)


def rewrite(file: Path, text: str) -> None:
    """Another content at another moment, however coarse the file system's clock is."""
    file.write_text(text)
    later = file.stat().st_mtime_ns + 1_000_000_000
    os.utime(file, ns=(later, later))


def test_live_captions_take_a_changed_file_with_the_next_segment(engine: Engine, golden: Path, tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("Anna")
    options = LiveOptions(keywords=Keywords((), file), generation=Generation(4))
    seen: list[object] = []
    for event in captions(FilePlayback(golden / "jfk.wav", pace="fast"), engine, options):
        seen.append(event)
        if isinstance(event, Final) and len([e for e in seen if isinstance(e, Final)]) == 1:
            rewrite(file, "Bert")
    read = [event for event in seen if isinstance(event, KeywordsRead)]
    assert [event.words for event in read] == [("Anna",), ("Bert",)]
    first_final = next(n for n, event in enumerate(seen) if isinstance(event, Final))
    assert seen.index(read[1]) == first_final + 1


def test_commands(salm_bundle: Path, golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, bundle = str(golden / "jfk.wav"), ["--bundle", str(salm_bundle), "--max-new-tokens", "2", "--threads", "1"]
    many = tmp_path / "many.txt"
    many.write_text("\n".join(f"w{n}" for n in range(60)))
    assert main(["ask", clip, "asr", "--keywords-file", str(many), *bundle]) == 0
    assert "10 more were left out, for 50 are read: w50, w51" in capsys.readouterr().err
    for command in (["ask", clip, "asr"], ["caption", clip], ["listen", clip, "--pace", "fast"]):
        assert main([*command, "--keywords", "Kubernetes", *bundle]) == 0
        assert main([*command, "--keywords", "[", *bundle]) == 2
        assert "belongs to the list" in capsys.readouterr().err
