"""SALMONN: spec of its parts put together, its prompt, the evaluation prompts by task.

Source: docs/reference.md §0, §4, §6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ..encoders import beats, qformer, whisper
from ..encoders.beats import BEATS_ITER3_PLUS, BeatsSpec
from ..encoders.qformer import QFormerSpec
from ..encoders.whisper import FRAME_RATE, HOP_LENGTH, WHISPER_LARGE_V2, WhisperSpec
from ..errors import InputError
from ..graph_io import GraphInfo, TensorInfo
from ..llm import SALMONN_LORA, VICUNA_7B_V15, VICUNA_13B_V11, LlmSpec, LoraSpec
from ..prompt import AUDIO, KEYWORDS, MAX_KEYWORDS, PROMPT, SYSTEM, PromptInfo

FAMILY = "salmonn"
Hearing = Literal["window", "clip"]
"""What Whisper was trained to hear: its whole window, silence behind the clip; or the clip alone."""
MAX_NEW_TOKENS = 200
SAMPLES_PER_POSITION = 2 * HOP_LENGTH


@dataclass(frozen=True)
class SalmonnSpec:
    """Every size of one SALMONN."""

    whisper: WhisperSpec
    beats: BeatsSpec
    qformer: QFormerSpec
    llm: LlmSpec
    lora: LoraSpec
    hears: Hearing = "window"
    lists_keywords: ClassVar[bool] = False
    """Whether it learnt to read listed words in its prompt."""
    keyword_boost: ClassVar[float] = 3.0
    """Nats that tokens of listed words gain (docs/asking.md has what it was measured on)."""

    @property
    def n_samples(self) -> int:
        """Samples of the longest clip that one prompt hears."""
        return self.whisper.n_samples

    @property
    def seconds(self) -> float:
        """Of the longest clip."""
        return self.whisper.seconds

    @property
    def n_audio_tokens(self) -> int:
        """Audio tokens per clip, whatever its length: 88 at the released sizes."""
        return self.qformer.n_windows(self.whisper.n_positions)

    def n_settled(self, n_samples: int) -> int:
        """Leading audio tokens whose windows end before n_samples: what comes later changes them little."""
        n_positions = max(0, n_samples) // SAMPLES_PER_POSITION
        return self.qformer.n_windows(n_positions) if n_positions >= self.qformer.window else 0

    def positions_for(self, n_samples: int) -> int:
        """Whisper frames that whole Q-Former windows need to hear a clip alone; at least a second, at most all."""
        needed = max(-(-n_samples // SAMPLES_PER_POSITION), round(FRAME_RATE))
        steps = -(-(needed - self.qformer.window) // self.qformer.stride)
        return min(self.qformer.window + steps * self.qformer.stride, self.whisper.n_positions)

    def heard_positions(self, n_samples: int, short: bool | None = None) -> int | None:
        """Whisper frames of a clip; None: of its window. short: of the clip alone; None: what it was trained on."""
        alone = self.hears == "clip" if short is None else short
        return self.positions_for(n_samples) if alone else None

    @property
    def graphs(self) -> dict[str, GraphInfo]:
        """The interface that every graph must have."""
        w, b, q = self.whisper, self.beats, self.qformer
        speech = TensorInfo(whisper.OUTPUT, (1, "n_positions", w.d_model))
        audio = TensorInfo(beats.OUTPUT, (1, "n_tokens", b.d_model))
        log_mel = TensorInfo(whisper.INPUT, (1, w.n_mels, "mel_frames"))
        fbank = TensorInfo(beats.INPUT, (1, "n_frames", beats.N_MELS))
        audio_tokens = TensorInfo(qformer.OUTPUT, (1, "n_windows", q.d_llm))
        return {
            "whisper": GraphInfo("whisper.onnx", (log_mel,), (speech,)),
            "beats": GraphInfo("beats.onnx", (fbank,), (audio,)),
            "qformer": GraphInfo("qformer.onnx", (speech, audio), (audio_tokens,)),
        }

    @property
    def data_files(self) -> tuple[str, ...]:
        """Files of the bundle that are neither a graph nor a GGUF."""
        return ()

    def impossible(self) -> str | None:
        """A size that does not go with the others."""
        q = self.qformer
        if not 1 <= q.window <= self.whisper.n_positions or q.stride < 1:
            return f"a window of {q.second_per_window} s every {q.second_stride} s"
        return None


def _released(llm: LlmSpec) -> SalmonnSpec:
    windows = QFormerSpec(768, 12, 3072, WHISPER_LARGE_V2.d_model, BEATS_ITER3_PLUS.d_model, llm.hidden)
    return SalmonnSpec(WHISPER_LARGE_V2, BEATS_ITER3_PLUS, windows, llm, SALMONN_LORA)


SALMONN_7B = _released(VICUNA_7B_V15)
SALMONN_13B = _released(VICUNA_13B_V11)
RELEASED = {"salmonn-13b": SALMONN_13B, "salmonn-7b": SALMONN_7B}

TASKS = {
    "asr": "Recognize the speech and give me the transcription.",
    "asr_zh": "请将语音中的内容写下来。",
    "asr_de": "Hören Sie sich die Rede an und schreiben Sie ihren Inhalt auf.",
    "translation_ec": "Listen to the speech and translate it into Chinese.",
    "translation_en2ja": "Listen to the speech and translate it into Japanese.",
    "translation_en2de": "Listen to the speech and translate it into German.",
    "audiocaption": "Please describe the audio.",
    "audiocaption_v2": "Please write down what your hear in the audio.",
    "QA": "{}",
    "gender_QA": "{}",
    "phone_recognition": "Provide the phonetic transcription for the speech.",
    "speech_query": "Please answer the question in detail.",
    "emotion_recognition": "Describe the emotion of the speaker in one word.",
    "lyrics_recognition": "Listen to the song and write down its content.",
    "audio_speech_description": "Describe the speech and the background audio",
    "speaker_verification": "Do you only hear the same person talking? Answer yes or no.",
    "fluent_speech_audio": "Describe the background audio and the speech in a fluent sentence.",
    "speech_separation": "Please write down what you hear each person says.",
    "audio_story_telling": (
        "Based on the audio, write a story in detail. Your story should be highly related to the audio."
    ),
    "speech_audio_query": "Please answer the speaker's question in detail based on the background sound.",
    "slot_filling": "According to the speech, what is the {}?",
    "music_description": "Listen to this music clip and describe the music.",
    "speech_audio_coreasoning": (
        "Use your strong reasoning skills to answer the speaker's question in detail based on the background sound."
    ),
    "keywords": "Give me only three keywords of the text.",
    "speaker_diarization_asr": "Please recognize each speaker and transcribe their speech content.",
}
"""SALMONN's 25 evaluation prompts, misprints included; `{}` is filled by what follows a colon: `slot_filling:room`."""

TRANSCRIPTIONS = ("asr", "asr_zh", "asr_de", "lyrics_recognition")


@dataclass(frozen=True)
class ChatTemplate:
    """The words that a language model was taught to chat with, around one question."""

    before: str
    after: str
    end: str = ""
    """What stands behind an answer, its first token being the one that ends it; "": EOS alone."""
    system: str = SYSTEM
    special_tokens: bool = False
    """The texts spell special tokens."""

    @classmethod
    def parse(cls, template: str, end: str, *, special_tokens: bool) -> ChatTemplate:
        """From SALMONN's own notation, such as "USER: {} ASSISTANT:". Raises InputError unless {} stands in it once."""
        before, *rest = template.split("{}")
        if len(rest) != 1:
            raise InputError(f"--prompt-template {template!r} needs {{}} once, where the question stands")
        return cls(before, rest[0], end, special_tokens=special_tokens)


VICUNA = ChatTemplate("USER: ", "\nASSISTANT:")
PREFIX = f"{VICUNA.before}<Speech>"
SUFFIX = f"</Speech> {PROMPT}{VICUNA.after}"
CHATML = ChatTemplate(
    before="<|im_start|>user\n",
    after="<|im_end|>\n<|im_start|>assistant\n",
    end="<|im_end|>\n",
    system=f"<|im_start|>system\n{SYSTEM}<|im_end|>\n",
    special_tokens=True,
)
LLAMA_3 = ChatTemplate(
    before="<|start_header_id|>user<|end_header_id|>\n\n",
    after="<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    end="<|eot_id|>",
    system=f"<|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>",
    special_tokens=True,
)
CHAT_TEMPLATES = {"<|im_start|>": CHATML, "<|start_header_id|>": LLAMA_3}
"""By the special token that begins a turn."""


def prompt_info(
    encode: Callable[[str], Sequence[int]], bos_id: int | None, eos_id: int, template: ChatTemplate = VICUNA
) -> PromptInfo:
    """How SALMONN is asked; encode: text to ids, nothing added. It never learnt to read listed words.

    bos_id: None where the language model begins without. eos_id: what ends an answer, the first of template.end.
    """
    start_ids = () if bos_id is None else (bos_id,)
    question = f"<Speech>{AUDIO}</Speech> {PROMPT}"
    return PromptInfo(
        turn=f"{template.before}{KEYWORDS}{question}{template.after}",
        text_turn=f"{template.before}{PROMPT}{template.after}",
        system=template.system,
        audio_tag=None,
        keywords="Following words may occur in audio: [{words}] ",
        max_keywords=MAX_KEYWORDS,
        tasks=TASKS,
        transcriptions=TRANSCRIPTIONS,
        normalization=None,
        special_tokens=template.special_tokens,
        start_ids=start_ids,
        end_ids=tuple(encode(template.end)) if template.end else (eos_id,),
        eos_id=eos_id,
        prefix_ids=(*start_ids, *encode(f"{template.before}<Speech>")),
    )


def prompt_halves(prompt: str) -> tuple[str, str]:
    """The texts before and after the audio. Each is tokenized on its own, with its own dummy prefix and no BOS."""
    return PREFIX, SUFFIX.format(prompt=prompt.strip())
