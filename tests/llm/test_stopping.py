"""When an answer ends before the model ends it: stop texts, seconds, forms; for one answer, live captions and chats."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from auricle.models.audio import Waveform
from auricle.models.errors import AudioError, InputError, RunError
from auricle.runtime.__main__ import main
from auricle.runtime.audio.decode import read_audio
from auricle.runtime.chat import Chat
from auricle.runtime.engine import Engine, EngineOptions, load
from auricle.runtime.events import Caption, Final, Piece
from auricle.runtime.live.captions import Live, LiveOptions, captions
from auricle.runtime.llm.grammar.gbnf import read_grammar
from auricle.runtime.llm.grammar.json_schema import JsonSchema
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.speculative import reply_to_all
from auricle.runtime.llm.stopping import cut_at
from auricle.runtime.sources.playback import FilePlayback

COMMAND = "turn off the kitchen lamp"
YES_OR_NO = 'root ::= " "? ("yes" | "no")'


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load(None, EngineOptions(llm=LlmOptions(n_threads=1))) as opened:
        yield opened


@pytest.fixture(scope="module")
def command(engine: Engine) -> Path:
    return engine.bundle.path("clips") / "command.wav"


@pytest.fixture(scope="module")
def said(engine: Engine, command: Path) -> str:
    """What the demo model hears in it."""
    text = engine.ask(command, "asr").text
    assert len(text.split()) >= 4
    return text


def stream(engine: Engine, clip: Path, **options: Any) -> tuple[str, Final]:
    """The pieces joined, and the Final."""
    events = list(engine.stream(clip, "asr", Generation(**options)))
    final = events[-1]
    assert isinstance(final, Final)
    return "".join(event.text for event in events if isinstance(event, Piece)), final


def test_an_answer_ends_before_a_stop_text(engine: Engine, command: Path, said: str) -> None:
    """Wherever in a word it begins, and nothing of it is ever shown."""
    for at in (3, len(said) // 2, len(said) - 2):
        stop = said[at : at + 3]
        shown, final = stream(engine, command, stop=("never said", stop))
        assert shown.strip() == final.text == said[: said.index(stop)].strip()
        assert final.finish_reason == "stop"
    shown, final = stream(engine, command, stop=("never said", said + "!"))
    assert shown.strip() == final.text == said and final.finish_reason == "eos"  # what was held back comes at the end


@pytest.mark.parametrize(
    ("text", "stops", "cut"), [("a b c", ("c", "b"), "a "), ("abc", ("d",), "abc"), ("", ("a",), "")]
)
def test_the_first_stop_counts(text: str, stops: tuple[str, ...], cut: str) -> None:
    assert cut_at(text, stops) == cut


def test_what_is_there_after_the_time_is_the_answer(
    engine: Engine, command: Path, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes one second a look."""
    now = iter(range(1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    shown, final = stream(engine, command, max_seconds=3.0)
    assert final.finish_reason == "time" and len(final.token_ids) == 3
    assert shown.strip() == final.text and said.startswith(final.text) and final.text


def test_an_answer_goes_on_behind_eos_where_it_is_ignored(engine: Engine, command: Path) -> None:
    """For a measurement: the same tokens, then as many as were asked for; one after the other and with a draft."""
    usual = stream(engine, command)[1]
    n = len(usual.token_ids) + 5
    endless = Generation(n, guard=False, ignore_eos=True)
    final = stream(engine, command, max_new_tokens=n, guard=False, ignore_eos=True)[1]
    assert usual.finish_reason == "eos" and final.finish_reason == "length" and len(final.token_ids) == n
    assert final.token_ids[: len(usual.token_ids)] == usual.token_ids
    tokens = engine.encode(read_audio(command)).audio_tokens
    for draft in ((), usual.token_ids):
        (reply,) = reply_to_all(engine.llm, tokens, [usual.prompt], [draft], [n], generation=endless).replies
        assert (reply.ids, reply.finish_reason) == (final.token_ids, "length")


def test_an_answer_can_be_forced(engine: Engine, command: Path, said: str) -> None:
    """Its first tokens are given; what follows them is the model's own choice; a draft of them is accepted."""
    ids = tuple(engine.llm.prompts.tokenize("the lamp in the kitchen"))
    final = stream(engine, command, max_new_tokens=len(ids) + 3, forced_ids=ids)[1]
    assert final.token_ids[: len(ids)] == ids and final.text.startswith("the lamp in the kitchen")
    tokens = engine.encode(read_audio(command)).audio_tokens
    forced = Generation(len(ids), forced_ids=ids)
    found = reply_to_all(engine.llm, tokens, [final.prompt], [ids], [len(ids)], generation=forced)
    assert found.replies[0].ids == ids and found.replies[0].n_accepted == len(ids) - 1 and found.n_steps == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_seconds": 0.0},
        {"max_seconds": 1.0, "beams": 2},
        {"stop": ("",)},
        {"forced_ids": (5,), "beams": 2},
        {"ignore_eos": True, "gbnf": YES_OR_NO},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Generation(**wrong)


def test_a_form_may_repeat_itself(engine: Engine, command: Path) -> None:
    """Forty equal numbers are no loop, and JSON is no transcript whose length the sound limits."""
    gbnf = 'root ::= " "? "[" item{39} "1" "]"\nitem ::= "1, "'
    final = stream(engine, command, gbnf=gbnf, guard=True)[1]
    assert json.loads(final.text) == [1] * 40 and final.finish_reason == "eos"


def test_rules_are_checked_beside_an_answer_that_follows_them(engine: Engine, command: Path) -> None:
    tokens, schema = engine.encode(read_audio(command)).audio_tokens, {"type": "array", "items": {"type": "boolean"}}
    generation = Generation(30, gbnf=JsonSchema(schema).gbnf)

    def answer(check: bool) -> list[int]:
        ids: list[int] = []
        engine.llm.prefill(tokens, "asr", generation)
        for token in engine.llm.generate(generation):
            ids.append(token)
            if check:
                engine.llm.check_grammar(generation.gbnf or "")
        return ids

    assert answer(True) == answer(False)


def test_an_answer_that_was_not_begun_ends_too(engine: Engine, command: Path) -> None:
    tokens = engine.encode(read_audio(command)).audio_tokens
    engine.llm.prefill(tokens, "asr")
    old = engine.llm.generate()
    engine.llm.prefill(tokens, "What is it?")
    with pytest.raises(RunError, match="another question"):
        next(old)


def test_an_answer_has_the_form_it_was_given(engine: Engine, command: Path) -> None:
    assert stream(engine, command, gbnf=YES_OR_NO)[1].text in ("yes", "no")
    assert stream(engine, command, gbnf=YES_OR_NO)[1].text in ("yes", "no")  # and again: the rules begin anew
    schema = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
    assert json.loads(stream(engine, command, gbnf=JsonSchema(schema).gbnf)[1].text).keys() == {"on"}


class TestLive:
    def run(self, engine: Engine, clip: Path, generation: Generation, **options: Any) -> list[object]:
        live = LiveOptions(generation=generation, **options)
        return list(captions(FilePlayback(clip, pace="fast"), engine, live))

    @pytest.mark.parametrize("draft", [True, False])
    def test_forms_hold_for_every_prompt_of_every_update(self, engine: Engine, command: Path, draft: bool) -> None:
        """Drafts are checked against the form too: the answers are those of decoding each from the start."""
        events = self.run(engine, command, Generation(gbnf=YES_OR_NO), also=("What is it?",), draft=draft, hop_ms=300.0)
        texts = [
            e.text if isinstance(e, Final) else e.unstable or e.stable for e in events if isinstance(e, Caption | Final)
        ]
        texts += [answer for e in events if isinstance(e, Caption | Final) for _, answer in e.also]
        assert len(texts) > 6 and set(texts) <= {"yes", "no"}

    def test_stop_texts_end_captions(self, engine: Engine, command: Path, said: str) -> None:
        word = said.split()[2]
        (final,) = (e for e in self.run(engine, command, Generation(stop=(word,))) if isinstance(e, Final))
        assert final.finish_reason == "stop" and final.text == said[: said.index(word)].strip()

    def test_an_update_ends_with_its_time(self, engine: Engine, command: Path) -> None:
        """A token each, and what the one before had said stands: in the end they have caught up."""
        events = self.run(engine, command, Generation(max_seconds=1e-6))
        shown = [event.unstable or event.stable for event in events if isinstance(event, Caption)]
        (final,) = (event for event in events if isinstance(event, Final))
        assert final.finish_reason == "time" and 1 < len(final.token_ids) <= len(shown) + 1


def test_lora_scale_changes_with_the_next_segment(salm_bundle: Path, golden: Path) -> None:
    """While captions run, from another thread's call; the base alone says something else."""
    with load(salm_bundle, EngineOptions(llm=LlmOptions(n_threads=1))) as engine:
        live = Live(engine, FilePlayback(golden / "jfk.wav", pace="fast"), LiveOptions(generation=Generation(4)))
        assert live.lora_scale == live.trained_scale == 2.0
        scales: list[float] = []
        for event in live:
            if isinstance(event, Final):
                scales.append(engine.llm.lora_scale)
                live.set_lora_scale(0.0)
        assert scales == [2.0, 0.0, 0.0, 0.0] and live.lora_scale == 0.0


def test_a_bundle_without_adapter_has_one_scale(merged_demo: Path, command: Path) -> None:
    with load(merged_demo, EngineOptions(llm=LlmOptions(n_threads=1))) as fixed:
        live = Live(fixed, FilePlayback(command, pace="fast"))
        with pytest.raises(InputError, match="--lora adapter"):
            live.set_lora_scale(1.0)
        live.stop()
        list(live)


class TestChat:
    def test_a_later_question_costs_its_own_tokens_only(
        self, engine: Engine, command: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every position that is computed is counted: the clip's come once."""
        chat, llm = Chat(engine, command), engine.llm
        computed: list[int] = []
        for name in ("feed", "feed_audio"):
            monkeypatch.setattr(llm, name, counting(getattr(llm, name), computed))
        answers = [self.answer(chat, question, computed) for question in ("asr", "What did she say?", "And now?")]
        (first, n_first), *later = answers
        assert n_first >= first.timings.n_audio_tokens + len(first.token_ids)
        for before, (answer, n), question in zip(answers, later, ("What did she say?", "And now?"), strict=False):
            own = len(llm.prompts.text_turn(question)) + len(llm.prompts.info.end_ids)
            assert n <= own + len(answer.token_ids) + 1, before
        assert later[0][0].timings.encoders_ms == 0.0

    def answer(self, chat: Chat, question: str, computed: list[int]) -> tuple[Final, int]:
        computed.clear()
        *_, final = chat.ask(question, Generation(8))
        assert isinstance(final, Final)
        return final, sum(computed)

    def test_the_clip_is_never_forgotten(self, command: Path) -> None:
        options = EngineOptions(llm=LlmOptions(n_ctx=128, n_threads=1))
        with load(None, options) as small:
            chat = Chat(small, command)
            finals = [list(chat.ask("What is the room?", Generation(8)))[-1] for _ in range(12)]
            assert all(isinstance(final, Final) for final in finals) and chat._conversation.n_turns < 12
            assert len(chat._conversation._turns[0].audio_tokens) == len(small.encode(read_audio(command)).audio_tokens)

    def test_a_question_that_has_no_room_leaves_the_others_be(self, command: Path) -> None:
        with load(None, EngineOptions(llm=LlmOptions(n_ctx=160, n_threads=1))) as small:
            chat = Chat(small, command)
            for _ in range(3):
                list(chat.ask("What is the room?", Generation(8)))
            before = chat._conversation.n_turns
            with pytest.raises(InputError, match="positions"):
                list(chat.ask("room " * 200, Generation(8)))
            with pytest.raises(InputError, match=r"cannot read this grammar \(Undefined"):
                list(chat.ask("What?", Generation(8, gbnf="root ::= nowhere")))
            assert chat._conversation.n_turns == before > 1

    def test_a_named_task_can_follow(self, salm_bundle: Path, golden: Path) -> None:
        """A SALM's `asr` names the audio; behind the first question there is none to name."""
        with load(salm_bundle, EngineOptions(llm=LlmOptions(n_threads=1))) as salm:
            chat = Chat(salm, golden / "jfk.wav")
            finals = [list(chat.ask("asr", Generation(4)))[-1] for _ in range(2)]
            assert [final.prompt for final in finals if isinstance(final, Final)] == [
                "Transcribe the following: <|audioplaceholder|>",
                "Transcribe the following:",
            ]

    def test_what_cannot_be_chatted_about(self, engine: Engine, command: Path) -> None:
        clip: Waveform = read_audio(command)
        with pytest.raises(AudioError, match="silent"):
            Chat(engine, np.zeros(16_000, np.float32))
        with pytest.raises(InputError, match="longer than the 10 s"):
            Chat(engine, np.tile(clip, 8))
        with pytest.raises(InputError, match="beams=2"):
            next(Chat(engine, command).ask("asr", Generation(8, beams=2)))


def counting(method: Callable[..., Any], computed: list[int]) -> Callable[..., Any]:
    def counted(rows: Sequence[Any], **options: Any) -> Any:
        computed.append(len(rows))
        return method(rows, **options)

    return counted


class TestCommands:
    def test_chat_reads_questions_from_a_pipe(
        self, command: Path, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("asr\nslot_filling:room\n\nnever asked\n"))
        assert main(["chat", str(command), "--threads", "1", "--max-new-tokens", "20"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 2 and lines[0] == said

    def test_chat_goes_on_after_a_question_it_cannot_put(
        self, command: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["chat", str(command), "slot_filling", "asr", "--json", "--threads", "1"]) == 2
        shown = capsys.readouterr()
        assert "has a blank to fill" in shown.err and json.loads(shown.out)["question"] == "asr"

    def test_words_may_stand_around_options(self, command: Path, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ask", str(command), "--threads", "1", "asr"]) == 0
        assert main(["chat", str(command), "--threads", "1", "asr"]) == 0
        assert capsys.readouterr().out.splitlines() == [said, said]
        with pytest.raises(SystemExit):
            main(["ask", str(command), "asr", "--bogus"])
        assert "unrecognized arguments: --bogus" in capsys.readouterr().err
        assert main(["chat"]) == 2
        assert "no clip to chat about" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--n-ctx", "20"], "positions, 200 of them for its answer, but 20 are there"),
            (["--beams", "2"], "a conversation needs beams=1"),
            (["--grammar", "rules.gbnf"], "Undefined rule identifier 'nowhere'"),
        ],
    )
    def test_what_no_question_can_be_asked_with_is_said_once(
        self,
        command: Path,
        options: list[str],
        said: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "rules.gbnf").write_text("root ::= nowhere")
        monkeypatch.setattr(sys, "stdin", io.StringIO("asr\nWhat?\nWhere?\n"))
        assert main(["chat", str(command), "--threads", "1", *options]) == 2
        shown = capsys.readouterr()
        assert not shown.out and said in shown.err and shown.err.count("\n") == 1

    def test_answers_name_the_keywords(self, command: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["--json", "--threads", "1", "--max-new-tokens", "3"]
        listed = ["--keywords", "zorb, dishwasher"]
        for asked in (["ask", str(command), "asr"], ["chat", str(command), "asr", "asr"]):
            assert main([*asked, *words, *listed]) == 0
            lines = capsys.readouterr().out.splitlines()
            assert [json.loads(line)["keywords"] for line in lines] == [["zorb", "dishwasher"]] * len(lines)
            assert main([*asked, *words]) == 0
            assert not any("keywords" in json.loads(line) for line in capsys.readouterr().out.splitlines())

    def test_captions_say_what_stopped_them(self, command: Path, said: str, capsys: pytest.CaptureFixture[str]) -> None:
        for options, finish_reason in (
            ([], "eos"),
            (["--max-new-tokens", "2"], "length"),
            (["--stop", said.split()[2]], "stop"),
            (["--max-seconds", "0.000001"], "time"),
        ):
            assert main(["caption", str(command), "--format", "jsonl", "--threads", "1", *options]) == 0
            assert json.loads(capsys.readouterr().out)["finish_reason"] == finish_reason

    def test_a_line_that_is_no_text_is_refused_and_the_next_one_asked(
        self, command: Path, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = io.TextIOWrapper(io.BytesIO(b"caf\xe9?\nasr\n"), "utf-8")
        monkeypatch.setattr(sys, "stdin", lines)
        assert main(["chat", str(command), "--threads", "1"]) == 2
        shown = capsys.readouterr()
        assert shown.out.strip() == said and "not text" in shown.err

    def test_json_that_was_cut_is_said(self, command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "schema.json").write_text('{"type": "array", "items": {"type": "string"}, "minItems": 4}')
        asked = ["assist", str(command), "--pace", "fast", "--json-schema", str(tmp_path / "schema.json")]
        assert main([*asked, "--max-seconds", "0.000001"]) == 1
        shown = capsys.readouterr()
        assert not shown.out and "raise --max-seconds" in shown.err

    def test_a_task_is_meant_where_its_name_is_piped(
        self, command: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO("slot_filling:room\nslot_filling\n"))
        assert main(["chat", str(command), "--json", "--threads", "1"]) == 2
        shown = capsys.readouterr()
        assert json.loads(shown.out)["prompt"].startswith("According to the speech") and "blank" in shown.err

    def test_a_second_clip_is_no_prompt(self, command: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for asked in (["ask", str(command), str(command)], ["chat", str(command), str(command), "asr"]):
            assert main(asked) == 2
            assert "is a file" in capsys.readouterr().err

    def test_half_json_is_no_success(self, command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "schema.json").write_text('{"type": "array", "items": {"type": "string"}, "minItems": 4}')
        form = ["--json-schema", str(tmp_path / "schema.json"), "--max-new-tokens", "3"]
        for asked in (
            ["ask", str(command), "asr"],
            ["caption", str(command)],
            ["chat", str(command), "asr"],
            ["listen", str(command), "--pace", "fast"],
            ["assist", str(command), "--pace", "fast"],
        ):
            assert main([*asked, *form]) == 1
            assert "the JSON is not complete after 3 tokens: raise --max-new-tokens" in capsys.readouterr().err

    def test_answers_are_formed_and_stopped_everywhere(
        self, command: Path, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rules, word = tmp_path / "rules.gbnf", said.split()[2]
        rules.write_text(YES_OR_NO)
        for asked in (
            ["ask", str(command), "asr"],
            ["caption", str(command)],
            ["listen", str(command), "--pace", "fast"],
        ):
            assert main([*asked, "--grammar", str(rules)]) == 0
            assert capsys.readouterr().out.split()[-1] in ("yes", "no")
            assert main([*asked, "--stop", word]) == 0
            assert word not in capsys.readouterr().out
            assert main([*asked, "--max-seconds", "0"]) == 2
            assert "max_seconds" in capsys.readouterr().err
        assert main(["assist", str(command), "--pace", "fast", "--grammar", str(rules)]) == 0
        assert capsys.readouterr().out.split()[-1] in ("yes", "no")

    def test_a_time_that_is_over_marks_the_answer(self, command: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["ask", str(command), "asr", "--max-seconds", "0.000001", "--json"]) == 0
        (segment,) = json.loads(capsys.readouterr().out)["segments"]
        assert segment["finish_reason"] == "time" and len(segment["token_ids"]) == 1
        for asked in (["ask", str(command), "asr"], ["caption", str(command)]):
            assert main([*asked, "--max-seconds", "0.000001"]) == 0
            assert "cut after 1 token, when its time was over" in capsys.readouterr().err

    def test_rules_that_are_none_are_a_sentence(
        self, command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "words.gbnf").write_text("yes or no")
        assert main(["ask", str(command), "asr", "--grammar", str(tmp_path / "words.gbnf")]) == 2
        assert "no rule `root ::= ...`" in capsys.readouterr().err
        (tmp_path / "schema.json").write_text("{}")
        both = ["--grammar", str(tmp_path / "words.gbnf"), "--json-schema", str(tmp_path / "schema.json")]
        assert main(["ask", str(command), "asr", *both]) == 2
        assert "not both" in capsys.readouterr().err
        with pytest.raises(InputError, match="cannot be read"):
            read_grammar(tmp_path / "absent.gbnf")
