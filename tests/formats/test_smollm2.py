"""A trained language model, SmolLM2-135M-Instruct: through the exporter's GGUF it says what it says in transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from auricle.export.llm.export import read_llm, write_gguf
from auricle.export.training.small.base import write_base
from llama_judge import Judge
from real_weights import SMOLLM2
from transformers import AutoTokenizer, LlamaForCausalLM

pytestmark = SMOLLM2.needed
N_TOKENS = 10
QUESTIONS = (
    "What is the capital of France?",
    "Name three colours.",
    "How many legs has a spider?",
    "Write one sentence about the sea.",
    "What is 12 times 12?",
    "Who wrote Hamlet?",
    "Translate good morning into Spanish.",
    "What do bees make?",
    "Give me a recipe for tea.",
    "Why is the sky blue?",
    "What day follows Monday?",
    "Say hello.",
    "Is ice colder than water?",
    "What is a verb?",
    "List two fruits, please.",
    "How do I boil an egg?",
    "What is the opposite of hot?",
    "Where do penguins live?",
    "Summarize: the cat sat on the mat.",
    "Ünïcödé — does 日本語 work?",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("smollm2") / "llm"
    write_base(SMOLLM2.folder, place)
    return place


def greedy(judge: Judge, ids: list[int]) -> list[int]:
    judge.restart()
    judge.prefill(ids)
    found: list[int] = []
    for n in range(N_TOKENS):
        found.append(int(judge.logits().argmax()))
        judge.prefill(found[-1:], len(ids) + n)
    return found


def question(text: str) -> str:
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


def test_twenty_prompts_go_on_as_in_transformers(folder: Path, tmp_path: Path) -> None:
    """Greedy, from the weights dequantized, at f32. Equal but for the second of two tokens that are as likely."""
    write_gguf(read_llm(folder), tmp_path / "llm.gguf", "f32")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    judge = Judge(tmp_path / "llm.gguf")
    try:
        for text in QUESTIONS:
            ids = tokenizer(question(text), add_special_tokens=False).input_ids
            assert judge.tokens(question(text), specials=True) == ids
            made = greedy(judge, ids)
            with torch.no_grad():
                logits = model(torch.tensor([ids + made])).logits[0, len(ids) - 1 : -1]
            best = logits.max(dim=-1).values
            chosen = logits.gather(1, torch.tensor(made)[:, None])[:, 0]
            assert float((best - chosen).max()) < 1e-3, text
    finally:
        judge.close()


def test_its_package_knows_the_capital_of_france() -> None:
    judge = Judge(SMOLLM2.folder / "model.gguf")
    try:
        ids = greedy(judge, judge.tokens(question(QUESTIONS[0]), specials=True))
        assert "Paris" in judge.text(ids)
    finally:
        judge.close()
