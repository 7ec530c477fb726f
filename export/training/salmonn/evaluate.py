"""Evaluation of the demo in torch, float32, greedy: held-out sentences, sounds and slots -> scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import sentencepiece
import torch
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ....models.corpus.examples import Example, held_out, named_sound, query_examples, slot_examples, sound_examples
from ...encoders.beats import Beats
from ...encoders.whisper import encode
from ..bridge import Bridge
from .bridge import Layout
from .corpus import Rendered, render
from .encoders import WINDOW_FRAMES
from .joint import prompt_ids

_BATCH = 32
_MAX_NEW_TOKENS = 48


class Judge:
    """Answers examples with the parts of one model."""

    def __init__(
        self,
        whisper: WhisperEncoder,
        beats: Beats,
        bridge: Bridge,
        llm: nn.Module,
        tokenizer: sentencepiece.SentencePieceProcessor,
        layout: Layout,
    ) -> None:
        self.layout = layout
        self.whisper = whisper
        self.beats = beats
        self.bridge = bridge
        self.llm = llm
        self.tokenizer = tokenizer

    @torch.no_grad()
    def answers(self, examples: list[Example]) -> list[str]:
        """The model's answer to each example."""
        rendered = [render(example.clip) for example in examples]
        groups: dict[tuple[str, int], list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            groups[example.task, self._n_windows(rendered[index])].append(index)
        out = [""] * len(examples)
        for (task, n_windows), indices in groups.items():
            for start in range(0, len(indices), _BATCH):
                some = indices[start : start + _BATCH]
                texts = self._generate(task, self._hear([rendered[index] for index in some], n_windows))
                for index, text in zip(some, texts, strict=True):
                    out[index] = text
        return out

    def _n_windows(self, clip: Rendered) -> int:
        return self.layout.windows_of(len(clip.log_mel)) if self.layout.hears == "clip" else self.layout.n_windows

    def _hear(self, clips: list[Rendered], n_windows: int) -> Tensor:
        spec = self.layout.spec
        used = n_windows * spec.window
        n_frames = WINDOW_FRAMES if n_windows == self.layout.n_windows else 2 * used
        mel = torch.from_numpy(np.stack([clip.padded_mel(n_frames) for clip in clips]))
        speech = encode(self.whisper, mel)[:, :used]
        audio = torch.zeros(len(clips), used, spec.d_audio)
        real = torch.zeros(len(clips), used, 1)
        for row, clip in enumerate(clips):
            tokens = self.beats(torch.from_numpy(clip.fbank)[None])[0][:used]
            audio[row, : len(tokens)] = tokens
            real[row, : len(tokens)] = 1.0
        tokens = self.bridge(*(rows.flatten(0, 1) for rows in (speech, audio, real)))
        return tokens.view(len(clips), n_windows, spec.d_llm)

    def _generate(self, task: str, audio_tokens: Tensor) -> list[str]:
        before, after = prompt_ids(task, self.tokenizer)
        embed = self.llm.get_input_embeddings()  # pyright: ignore
        rows = len(audio_tokens)
        first, last = (embed(torch.tensor([ids])).expand(rows, -1, -1) for ids in (before, after))
        embeds = torch.cat([first, audio_tokens, last], 1)
        ids = self.llm.generate(  # pyright: ignore
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.int64),
            max_new_tokens=_MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=2,
        )
        return [self.tokenizer.decode([i for i in row if i != 2]).strip() for row in ids.tolist()]


def report(judge: Judge, n: int = 300, seed: int = 0) -> dict[str, float]:
    """Print and return the marks: word error of both splits and of each unseen voice, sounds, slots, answers."""
    marks: dict[str, float] = {}
    for split in ("seen", "unseen"):
        examples = list(held_out(split, n, seed))
        answers = judge.answers(examples)
        marks[f"wer_{split}"] = word_error_rate(zip(examples, answers, strict=True))
        by_voice: dict[str, list[tuple[Example, str]]] = defaultdict(list)
        for example, answer in zip(examples, answers, strict=True):
            by_voice[example.clip.voice or ""].append((example, answer))
        if split == "unseen":
            marks |= {f"wer_{voice}": word_error_rate(pairs) for voice, pairs in by_voice.items()}
        wrong = [(e.expected, a) for e, a in zip(examples, answers, strict=True) if e.expected != a]
        print(f"{split}: {len(wrong)} of {n} sentences wrong, for example {wrong[:4]}", flush=True)
    sounds = list(sound_examples(n, seed))
    described = zip(sounds, judge.answers(sounds), strict=True)
    named = [named_sound(answer) == example.clip.sound for example, answer in described]
    marks |= {"sound_accuracy": float(np.mean(named)), "sound_alone": float(np.mean(named[::2]))}
    for name, examples in (
        ("slot_accuracy", list(slot_examples(n, seed))),
        ("query_accuracy", list(query_examples(n // 3, seed))),
        ("keyword_accuracy", list(query_examples(n // 3, seed, "keywords"))),
    ):
        right = [e.expected == answer for e, answer in zip(examples, judge.answers(examples), strict=True)]
        marks[name] = float(np.mean(right))
    print(marks, flush=True)
    return marks


def word_error_rate(pairs: Iterable[tuple[Example, str]]) -> float:
    """Word edits over words of reference, over all pairs."""
    n_edits = total = 0
    for example, answer in pairs:
        reference = example.expected.split()
        n_edits += edits(reference, answer.split())
        total += len(reference)
    return n_edits / max(total, 1)


def edits(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein distance of two lists of words."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        diagonal = row[0]
        row[0] = i
        for j, other in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
