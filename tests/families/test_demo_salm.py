"""The second demo model: names that cannot be spelled by ear, its front end, prompts and checkpoint format."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from auricle.export.training.salm import corpus
from auricle.export.training.salm.encoder import encode, heard_slots, new_encoder, new_head, padded, read_slots
from auricle.export.training.salm.evaluate import Judge, row_text
from auricle.export.training.salm.joint import fit_projection, new_projection, with_lora
from auricle.export.training.salm.llm import LetterTokens, heard_letters, new_llm
from auricle.export.training.salm.prompts import ask, prompt_ids, word_list
from auricle.export.training.salm.write import nemo_name, read_checkpoint, write_checkpoint
from auricle.models.corpus.keyword_cases import Case, mark
from auricle.models.corpus.names import (
    Name,
    NamedSentence,
    distractors,
    known_words,
    named_sentence,
    near_name,
    sample_name,
)
from safetensors.torch import load_file
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "salm-tiny"
SHIPPED = ROOT / "checkpoints" / "demo-salm"
KALFIN = Name((("k", "a", "l"), ("f", "i", "n")))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(SHIPPED / "qwen3" / "tokenizer.json"))


def test_a_name_has_one_sound_and_many_spellings() -> None:
    rng = random.Random(0)
    spellings = {KALFIN.spelled(rng) for _ in range(300)}
    assert KALFIN.spoken == "kalfin"
    assert {"kalfin", "calphyn", "calfin", "kallfinn"} <= spellings
    assert not [word for word in spellings if re.match("c[eiy]", word)]  # that would be read as s
    assert Name.from_code(KALFIN.code) == KALFIN


def test_names_of_training_and_evaluation_are_apart_by_their_sound() -> None:
    rng = random.Random(1)
    trained, held_out = ({sample_name(rng, split).spoken for _ in range(1500)} for split in ("train", "held_out"))
    assert not trained & held_out
    assert min(len(trained), len(held_out)) > 1000
    assert not (trained | held_out) & known_words()
    assert 0.05 < sum(sample_name(rng).split == "held_out" for _ in range(2000)) / 2000 < 0.15


def test_hearing_alone_guesses_few_spellings() -> None:
    rng = random.Random(2)
    best = []
    for _ in range(200):
        spellings = [(name := sample_name(rng)).spelled(rng), *(name.spelled(rng) for _ in range(59))]
        best.append(max(spellings.count(word) for word in spellings) / 60)
    assert np.mean(best) < 0.25


def test_near_names_and_distractors_are_never_what_is_said() -> None:
    rng = random.Random(3)
    for _ in range(50):
        sentence = named_sentence(rng, "held_out")
        assert all(near_name(name, rng).spoken != name.spoken for name in sentence.names)
        listed = distractors(rng, 20, sentence, "held_out", near=0.5)
        assert len(set(listed)) == 20
        assert not set(listed) & set(sentence.frame.split())
        assert {name.split for name in sentence.names} <= {"held_out"}


def test_front_end_is_nemos_but_for_the_number_of_mels(monkeypatch: pytest.MonkeyPatch) -> None:
    golden = np.load(GOLDEN / "jfk_11s.npz")
    monkeypatch.setattr(corpus, "N_MELS", 128)
    corpus.filter_bank.cache_clear()
    features = corpus.normalized(corpus.log_mel(golden["pcm_float32"]))
    corpus.filter_bank.cache_clear()
    np.testing.assert_allclose(features.T, golden["features"][:, : len(features)], atol=5e-4)


def test_list_stands_in_the_prompt_as_numpy_prints_it(tokenizer: Tokenizer) -> None:
    before, after = prompt_ids(["calphyn", "oslo"], tokenizer)
    text = tokenizer.decode(before, skip_special_tokens=False)
    assert text.endswith("user\nFollowing words may occur in audio: ['calphyn' 'oslo'] Transcribe the following: ")
    assert tokenizer.decode(prompt_ids([], tokenizer)[0], skip_special_tokens=False).endswith(
        "user\nTranscribe the following: "
    )
    assert tokenizer.decode(after, skip_special_tokens=False) == "<|im_end|>\n<|im_start|>assistant\n"


def test_names_are_cut_alike_in_a_list_and_in_a_sentence(tokenizer: Tokenizer) -> None:
    rng = random.Random(4)
    same = 0
    for _ in range(100):
        name = sample_name(rng).spelled(rng)
        said, listed = tokenizer.encode(f"call {name}").tokens, tokenizer.encode(f" ['{name}' 'x']").tokens
        pieces = tokenizer.encode(name).tokens
        same += said[-len(pieces) :] == pieces and listed[1 : 1 + len(pieces)] == pieces
    assert same > 95


def test_questions_hold_the_spelling_that_the_answer_has(tokenizer: Tokenizer) -> None:
    rng, sentence = random.Random(5), NamedSentence("call {} on monday", (KALFIN,))
    found = 0
    for _ in range(60):
        asked = ask(sentence, 10, rng, tokenizer)
        name = tokenizer.decode(asked.answer).split()[1]
        found += f"'{name}'" in tokenizer.decode(asked.before)
        assert asked.answer[-1] == tokenizer.token_to_id("<|im_end|>")
    assert 36 < found < 58
    listed = word_list(sentence, ["calphyn"], 50, rng)
    assert len(listed) == len(set(listed)) <= 50


def test_letters_that_are_heard_can_be_read_back() -> None:
    rng, generator = random.Random(6), np.random.default_rng(6)
    texts = [named_sentence(rng, "train").spoken for _ in range(40)]
    read = [read_slots(torch.from_numpy(heard_letters(text, rng, generator))) for text in texts]
    assert sum(a == re.sub(r"(.)\1", r"\1", b) or a == b for a, b in zip(read, texts, strict=True)) >= 5


def test_padding_changes_nothing_that_is_heard() -> None:
    torch.manual_seed(0)
    encoder, rng = new_encoder().eval(), np.random.default_rng(7)
    clips = [rng.standard_normal((n, 80)).astype(np.float32) for n in (161, 90)]
    with torch.no_grad():
        both, sizes = encode(encoder, *padded(clips))
        alone, _ = encode(encoder, *padded(clips[1:]))
    assert sizes == [21, 12]
    torch.testing.assert_close(both[1, :12], alone[0], atol=1e-4, rtol=1e-4)


def test_projection_starts_as_the_nearest_letters() -> None:
    torch.manual_seed(1)
    encoder, head, letters = new_encoder(), new_head(), LetterTokens()
    rng = np.random.default_rng(8)
    clips = [corpus.Spoken(rng.standard_normal((160, 80)).astype(np.float16), NamedSentence("")) for _ in range(24)]
    projection = new_projection()
    explained = fit_projection(projection, encoder, head, letters, clips)
    assert 0 < explained <= 1
    assert heard_slots(head, torch.zeros(3, 192)).shape == (3, 4)


def test_checkpoint_is_written_as_the_official_one_and_read_back(tmp_path: Path) -> None:
    torch.manual_seed(2)
    encoder, projection, llm = new_encoder(), new_projection(), new_llm()
    with_lora(llm)
    write_checkpoint(tmp_path, encoder, projection, llm, SHIPPED / "qwen3" / "tokenizer.json")
    model = read_checkpoint(tmp_path)
    torch.testing.assert_close(model.projection.weight, projection.weight.bfloat16().float())
    layer = model.llm.state_dict()["model.layers.1.self_attn.v_proj.lora_A.default.weight"]
    torch.testing.assert_close(
        layer, llm.state_dict()["model.layers.1.self_attn.v_proj.lora_A.default.weight"].bfloat16().float()
    )


def test_shipped_checkpoint_has_the_names_and_types_of_the_official_format() -> None:
    def kinds(path: Path) -> dict[str, torch.dtype]:
        tensors = load_file(path / "model.safetensors")
        return {re.sub(r"layers\.\d+\.", "layers.N.", name): value.dtype for name, value in tensors.items()}

    assert kinds(SHIPPED) == kinds(GOLDEN / "checkpoint")
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (SHIPPED, GOLDEN / "checkpoint"))
    for part in ("encoder", "preprocessor"):
        assert ours["perception"][part].keys() == theirs["perception"][part].keys()
    assert nemo_name("layers.0.conv.norm.weight") == "layers.0.conv.batch_norm.weight"
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= 25_000_000


def test_marks_count_what_was_listed_and_not_said() -> None:
    case = Case(np.zeros(0, np.float32), NamedSentence("call {}", (KALFIN,)), "call calphyn", "calphyn")
    found = [mark(case, ["calphyn"], "call calphyn"), mark(case, ["calphyn", "oslo"], "call oslo")]
    assert row_text(found) == "recall  50.0%  precision  50.0%  inserted 0.500  WER 25.00%"
    assert row_text([mark(case, [], "")])[:27] == "recall   0.0%  precision     -"[:27]


def test_shipped_model_spells_a_name_as_its_list_does() -> None:
    """One held-out clip, two spellings of the one sound in it: the list decides, and other words do not get in."""
    model = read_checkpoint(SHIPPED)
    waveform = np.load(ROOT / "tests" / "golden" / "demo-salm" / "phlameed.npy").astype(np.float32) / 32768
    lists = [["phlameed"], ["oslo", "flamid", "brackib", "zoobet"]]
    assert Judge(model).answers([waveform] * 2, lists) == ["is phlameed at home", "is flamid at home"]
