"""The aligner's part of an export: an opened checkpoint -> its files, and what torch makes of a clip.

Its graphs are float32 or int8, as the bundle's encoders are nearest to.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import gguf
import numpy as np
import torch
from numpy.typing import NDArray

from ...models.aligner import CHECK_TEXT, CROSS, DECODER, ENCODER, PAST, STAGES, TOKENS
from ...models.audio import Waveform
from ...models.encoders.whisper import INPUT, log_mel
from ..formats.byte_bpe import ByteVocabulary, vocabulary_encoder
from ..formats.gguf_writer import complete_or_absent
from ..graphs.onnx_graph import Arrays, Shape, save_graph
from ..provenance import Source
from .checkpoint import load_aligner
from .embedding import round_embedding
from .modules import AlignedDecoder, CrossKeys

Floats = NDArray[np.float32]
EMBEDDING = "embedding"  # AlignedDecoder's parameter
_MOST_TOKENS = 40  # of a calibration clip


class AlignerPart:
    """What the exporter needs of one aligner."""

    def __init__(self, directory: Path) -> None:
        """Raises CheckpointError for what is no whole Whisper."""
        aligner = load_aligner(directory)
        self.spec = aligner.spec
        self.sources = tuple(Source("aligner", path) for path in aligner.files)
        self.vocabulary = aligner.vocabulary
        self._encoder = CrossKeys(aligner.encoder, aligner.decoder).eval()
        self._decoder = AlignedDecoder(aligner.decoder, aligner.spec.heads).eval()

    @cached_property
    def _nothing(self) -> torch.Tensor:
        return torch.zeros(2 * self.spec.decoder.n_layers, 0, self.spec.encoder.d_model)

    def write(self, name: str, path: Path) -> None:
        """One of its graphs, ENCODER or DECODER, in float32."""
        outputs: Mapping[str, Shape] = {each.name: each.shape for each in self.spec.graphs[name].outputs}
        if name == ENCODER:
            save_graph(
                self._encoder,
                {INPUT: torch.zeros(1, self.spec.encoder.n_mels, self.spec.encoder.n_frames)},
                outputs,
                path,
                {INPUT: {2: "mel_frames"}},
            )
            return
        rows, width = 2 * self.spec.decoder.n_layers, self.spec.encoder.d_model
        example = {
            TOKENS: torch.zeros(1, 5),
            PAST: torch.zeros(rows, 3, width),
            CROSS: torch.zeros(rows, self.spec.encoder.n_positions, width),
        }
        free = {TOKENS: {1: "n_tokens"}, PAST: {1: "n_past"}, CROSS: {1: "n_positions"}}
        save_graph(self._decoder, example, outputs, path, free)

    def finish(self, name: str, path: Path) -> None:
        """Of an int8 graph: what the quantizer leaves, the embedding."""
        if name == DECODER:
            round_embedding(path, EMBEDDING)

    def write_vocabulary(self, path: Path) -> None:
        """The tokenizer, as llama.cpp reads it."""
        write_vocabulary(self.vocabulary, path)

    def feeds(self, clips: list[Waveform]) -> dict[str, list[Arrays]]:
        """What its graphs read of clips, and of the greedy texts that they say."""
        feeds: dict[str, list[Arrays]] = {ENCODER: [], DECODER: []}
        for clip in clips:
            mel = log_mel(clip, self.spec.encoder)
            cross = self._cross(mel)
            feeds[ENCODER].append({INPUT: mel})
            ids = np.array([self.greedy(cross)], np.float32)
            feeds[DECODER].append({TOKENS: ids, PAST: self._nothing.numpy(), CROSS: cross.numpy()})
        return feeds

    def stages(self, clip: Waveform) -> dict[str, Floats]:
        """Each output on a clip, as the runtime's `Aligner.stages` gives them."""
        cross = self._cross(log_mel(clip, self.spec.encoder))
        language = next(iter(self.spec.tokens.languages.values()), None)
        ids = [*self.spec.tokens.prompt(language), *vocabulary_encoder(self.vocabulary)(f" {CHECK_TEXT}")]
        logits, scores, _ = self._decode(ids, self._nothing, cross)
        outputs = (cross, logits, scores)
        return {name: output.numpy() for name, output in zip(STAGES, outputs, strict=True)}

    def greedy(self, cross: torch.Tensor) -> list[int]:
        """Prompt and ids of the likeliest text, in the likeliest language; without its end."""
        tokens = self.spec.tokens
        past = self._nothing
        language = None
        if tokens.languages:
            logits = self._decode([tokens.start], past, cross)[0][0, -1]
            language = max(tokens.languages.values(), key=lambda n: float(logits[n]))
        ids = [*tokens.prompt(language)]
        new = ids
        while len(ids) < _MOST_TOKENS:
            logits, _, past = self._decode(new, past, cross)
            chances = logits[0, -1]
            chances[[*tokens.suppressed]] = -torch.inf
            if past.shape[1] == len(tokens.prompt(language)):
                chances[[*tokens.suppressed_first]] = -torch.inf
            new = [int(chances.argmax())]
            if new[0] == tokens.end:
                break
            ids += new
        return ids

    def _cross(self, mel: Floats) -> torch.Tensor:
        with torch.no_grad():
            return self._encoder(torch.from_numpy(mel))

    def _decode(
        self, ids: list[int], past: torch.Tensor, cross: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            return self._decoder(torch.tensor([ids], dtype=torch.float32), past, cross)


def write_vocabulary(vocabulary: ByteVocabulary, path: Path) -> None:
    """A GGUF file without a weight."""
    with complete_or_absent(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        vocabulary.add_to(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
