"""Evaluation of demo-salm in torch, float32, greedy: lists of words -> recall and precision, before quantization."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor, nn

from ....models.audio import Waveform
from ....models.corpus.keyword_cases import ARRANGEMENTS, Mark, cases, mark, word_list
from .corpus import log_mel
from .encoder import encode, padded
from .prompts import end_id, prompt_ids
from .write import Model

_BATCH = 25
_MAX_NEW_TOKENS = 64


def report(model: Model, n: int = 200, seed: int = 0) -> dict[str, list[Mark]]:
    """Print a row for each arrangement of lists, over n clips each, and return its marks."""
    judge = Judge(model)
    clips = {named: list(cases(named, n, seed)) for named in (True, False)}
    rows: dict[str, list[Mark]] = {}
    for kind in ARRANGEMENTS:
        some = clips[kind.named]
        lists = [word_list(case, kind.size, kind.with_name, f"{seed} {kind.size} {i}") for i, case in enumerate(some)]
        answers = judge.answers([case.waveform for case in some], lists)
        rows[kind.title] = [mark(*row) for row in zip(some, lists, answers, strict=True)]
        print(f"{kind.title:26} {row_text(rows[kind.title])}", flush=True)
    for size, title in ((0, "no list"), (20, "20 others listed")):
        kinds = [kind.title for kind in ARRANGEMENTS if kind.size == size and not kind.with_name]
        print(f"all, {title:21} {row_text([mark for kind in kinds for mark in rows[kind]])}", flush=True)
    return rows


def row_text(marks: Sequence[Mark]) -> str:
    """Recall of names, precision of listed words, those inserted per clip, and word error rate."""
    recalled = [mark.recalled for mark in marks if mark.recalled is not None]
    right = sum(mark.right for mark in marks)
    wrong = sum(mark.wrong for mark in marks)
    recall = f"{fmean(recalled):6.1%}" if recalled else "     -"
    precision = f"{right / (right + wrong):6.1%}" if right + wrong else "     -"
    wer = sum(mark.edits for mark in marks) / max(1, sum(mark.words for mark in marks))
    return f"recall {recall}  precision {precision}  inserted {wrong / len(marks):.3f}  WER {wer:6.2%}"


class Judge:
    """Transcribes clips with the parts of one model."""

    def __init__(self, model: Model) -> None:
        self.model = model

    @torch.no_grad()
    def answers(self, waveforms: Sequence[Waveform], lists: Sequence[list[str]]) -> list[str]:
        """What the model writes down of each clip, each with its list."""
        return [
            text
            for start in range(0, len(waveforms), _BATCH)
            for text in self._some(waveforms[start : start + _BATCH], lists[start : start + _BATCH])
        ]

    def _some(self, waveforms: Sequence[Waveform], lists: Sequence[list[str]]) -> list[str]:
        model = self.model
        hidden, sizes = encode(model.encoder, *padded([log_mel(waveform) for waveform in waveforms]))
        embed = model.llm.get_input_embeddings()
        rows: list[Tensor] = []
        for audio, size, listed in zip(model.projection(hidden), sizes, lists, strict=True):
            before, after = prompt_ids(listed, model.tokenizer)
            rows.append(torch.cat([embed(torch.tensor(before)), audio[:size], embed(torch.tensor(after))]))
        embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_side="left")
        real = torch.arange(embeds.shape[1]) >= embeds.shape[1] - torch.tensor([len(row) for row in rows])[:, None]
        end = end_id(model.tokenizer)
        ids = model.llm.generate(  # pyright: ignore
            inputs_embeds=embeds,
            attention_mask=real.long(),
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=end,
        )
        return [model.tokenizer.decode([i for i in row if i != end]).strip() for row in ids.tolist()]
