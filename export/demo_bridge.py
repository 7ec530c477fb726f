"""Training what joins the demo model's encoders to its LLM, all three frozen: Q-Former, projection and LoRA.

As the paper: transcription and description first, then every task. Encoder outputs are computed once and memory-mapped.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import sentencepiece
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ..models import demo_corpus as corpus
from ..models.demo_corpus import Clip, expected_answer, training_task
from ..models.qformer import QFormerSpec
from ..models.salmonn import prompt_for, prompt_halves
from .beats import Beats
from .demo_clips import Rendered
from .demo_encoders import BEATS_SPEC, WINDOW_FRAMES, encode
from .demo_llm import HIDDEN
from .demo_schedule import Trainer
from .qformer import ReferenceQFormer

SPEC = QFormerSpec(hidden=192, n_heads=3, d_ffn=768, d_speech=192, d_audio=BEATS_SPEC.d_model, d_llm=HIDDEN)
N_WINDOWS = SPEC.n_windows(WINDOW_FRAMES // 2)
_N_USED = N_WINDOWS * SPEC.window  # Whisper frames that reach a window: 493 of 500
_FIRST_STAGE = 0.3  # of the time: transcription and description only
LORA_RANK, LORA_ALPHA = 8, 32.0


@dataclass(frozen=True)
class Features:
    """Encoder outputs of a corpus: speech [n_clips, 493, d], and audio's tokens one clip after the other."""

    speech: np.ndarray
    audio: np.ndarray
    audio_ends: np.ndarray

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """speech [B, 493, d], audio [B, 493, d] and which of audio's rows are real [B, 493, 1]."""
        audio = np.zeros((len(indices), _N_USED, self.audio.shape[1]), np.float32)
        real = np.zeros((len(indices), _N_USED, 1), np.float32)
        for row, index in enumerate(indices):
            start = int(self.audio_ends[index - 1]) if index else 0
            tokens = self.audio[start : int(self.audio_ends[index])][:_N_USED]
            audio[row, : len(tokens)], real[row, : len(tokens)] = tokens, 1.0
        speech = self.speech[indices].astype(np.float32)
        return torch.from_numpy(speech), torch.from_numpy(audio), torch.from_numpy(real)


class Bridge(nn.Module):
    """The two LayerNorms, the Q-Former and the projection: encoder outputs -> audio tokens [B, 29, d_llm]."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_speech, self.ln_audio = nn.LayerNorm(SPEC.d_speech), nn.LayerNorm(SPEC.d_audio)
        self.qformer = ReferenceQFormer(SPEC)
        nn.init.normal_(self.qformer.query, std=0.02)

    def forward(self, speech: Tensor, audio: Tensor, real: Tensor) -> Tensor:
        fused = torch.cat([self.ln_speech(speech), self.ln_audio(audio) * real], dim=2)
        windows = fused.view(-1, SPEC.window, SPEC.d_encoder)
        query = self.qformer.query.expand(len(windows), -1, -1)
        hidden = self.qformer.qformer(query_embeds=query, encoder_hidden_states=windows).last_hidden_state
        return self.qformer.projection(hidden[:, 0]).view(len(speech), N_WINDOWS, SPEC.d_llm)


def with_lora(llm: LlamaForCausalLM) -> PeftModel:
    """The LLM frozen but for LoRA on q and v; its first weights leave the LLM as it was."""
    targets = ["q_proj", "v_proj"]
    options = LoraConfig(task_type="CAUSAL_LM", r=LORA_RANK, lora_alpha=int(LORA_ALPHA), target_modules=targets)
    return cast(PeftModel, get_peft_model(llm, options))


def unfreeze(llm: PeftModel) -> None:
    """Let the LLM's own weights be trained too, all but its token embeddings."""
    for name, weight in llm.named_parameters():
        if "embed_tokens" not in name:
            weight.requires_grad_(True)


@torch.no_grad()
def compute_features(folder: Path, clips: list[Rendered], whisper: WhisperEncoder, beats: Beats) -> Features:
    """Both encoders over every clip, as at run time; kept in `folder`, and read back from it when it is whole."""
    paths = [folder / f"{name}.npy" for name in ("speech", "audio", "audio_ends")]
    if not paths[-1].exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write_speech(paths[0], clips, whisper)
        tokens = [_audio(clip, beats) for clip in clips]
        np.save(paths[1], np.concatenate(tokens))
        np.save(paths[2], np.cumsum([len(rows) for rows in tokens]))
    return Features(np.load(paths[0], mmap_mode="r"), np.load(paths[1]), np.load(paths[2]))


def train_bridge(
    trainer: Trainer,
    bridge: Bridge,
    llm: nn.Module,
    tokenizer: sentencepiece.SentencePieceProcessor,
    clips: list[Rendered],
    features: Features,
    batch: int = 32,
) -> None:
    """Teach every task on sound, until the trainer's time is spent."""
    rng = random.Random()
    for _ in trainer:
        indices = sorted(rng.sample(range(len(clips)), batch))
        first = trainer.spent < _FIRST_STAGE * trainer.budget
        rows = [_row(clips[index], rng, tokenizer, first) for index in indices]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            tokens = bridge(*features.batch(indices))
            loss = answer_loss(llm, tokens.float(), rows)
        trainer.step(loss)


def answer_loss(llm: nn.Module, audio_tokens: Tensor, rows: list[tuple[list[int], list[int], list[int]]]) -> Tensor:
    """Cross-entropy of the answers. Rows are (ids before the audio, ids behind it, answer ids with EOS)."""
    embed = llm.get_input_embeddings()  # pyright: ignore
    longest = max(len(after) + len(answer) for _, after, answer in rows)
    before = embed(torch.tensor([before for before, _, _ in rows]))
    tail = torch.tensor([after + answer + [0] * (longest - len(after) - len(answer)) for _, after, answer in rows])
    silent = before.shape[1] + N_WINDOWS
    labels = torch.full((len(rows), silent + longest), -100)
    for row, (_, after, answer) in enumerate(rows):
        start = silent + len(after)
        labels[row, start : start + len(answer)] = torch.tensor(answer)
    return llm(inputs_embeds=torch.cat([before, audio_tokens, embed(tail)], 1), labels=labels).loss


def prompt_ids(task: str, tokenizer: sentencepiece.SentencePieceProcessor) -> tuple[list[int], list[int]]:
    """Ids before the audio (BOS first) and behind it."""
    before, after = prompt_halves(prompt_for(task))
    return [1, *tokenizer.encode(before)], tokenizer.encode(after)


def _row(
    clip: Rendered, rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor, first: bool
) -> tuple[list[int], list[int], list[int]]:
    heard = Clip(_EMPTY, clip.utterance, sound=clip.sound)
    task = rng.choices(corpus.TASKS[:3], (0.7, 0.15, 0.15))[0] if first else training_task(heard, rng)
    before, after = prompt_ids(task, tokenizer)
    return before, after, [*tokenizer.encode(expected_answer(clip.utterance, clip.sound, task)), 2]


def _write_speech(path: Path, clips: list[Rendered], whisper: WhisperEncoder) -> None:
    shape = (len(clips), _N_USED, SPEC.d_speech)
    out = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    for start in range(0, len(clips), 32):
        mel = torch.from_numpy(np.stack([clip.padded_mel(WINDOW_FRAMES) for clip in clips[start : start + 32]]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = encode(whisper, mel)
        out[start : start + 32] = hidden[:, :_N_USED].float().numpy()


def _audio(clip: Rendered, beats: Beats) -> np.ndarray:
    return beats(torch.from_numpy(clip.fbank.astype(np.float32))[None])[0].half().numpy()


_EMPTY = np.zeros(0, np.float32)
