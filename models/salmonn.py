"""What SALMONN is: its parts put together, its prompt, the evaluation prompts by task.

Source: docs/reference.md §0, §4, §6.
"""

from __future__ import annotations

from dataclasses import dataclass

from .beats import BEATS_ITER3_PLUS, BeatsSpec
from .errors import InputError
from .llm import SALMONN_LORA, VICUNA_7B_V15, VICUNA_13B_V11, LlmSpec, LoraSpec
from .qformer import QFormerSpec
from .whisper import FRAME_RATE, HOP_LENGTH, WHISPER_LARGE_V2, WhisperSpec

FAMILY = "salmonn"
PREFIX = "USER: <Speech>"
SUFFIX = "</Speech> {prompt}\nASSISTANT:"
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

    def positions_for(self, n_samples: int) -> int:
        """Whisper frames that whole Q-Former windows need to hear a clip; at least a second, at most all."""
        needed = max(-(-n_samples // SAMPLES_PER_POSITION), round(FRAME_RATE))
        steps = -(-(needed - self.qformer.window) // self.qformer.stride)
        return min(self.qformer.window + steps * self.qformer.stride, self.whisper.n_positions)

    @property
    def n_audio_tokens(self) -> int:
        """Audio tokens per clip, whatever its length: 88 at the released sizes."""
        return self.qformer.n_windows(self.whisper.n_positions)


def _released(llm: LlmSpec) -> SalmonnSpec:
    qformer = QFormerSpec(768, 12, 3072, WHISPER_LARGE_V2.d_model, BEATS_ITER3_PLUS.d_model, llm.hidden)
    return SalmonnSpec(WHISPER_LARGE_V2, BEATS_ITER3_PLUS, qformer, llm, SALMONN_LORA)


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


_TRANSCRIPTIONS = frozenset(TASKS[name] for name in ("asr", "asr_zh", "asr_de", "lyrics_recognition"))
_LEAST_TOKENS, _TOKENS_PER_SECOND = 16, 12.0  # fast speech has 4 words a second, and a word up to 3 tokens


def token_budget(prompt: str, seconds: float) -> int | None:
    """How many tokens a transcription of so much audio can have; more are invented. None for other prompts."""
    return _LEAST_TOKENS + int(_TOKENS_PER_SECOND * seconds) if prompt in _TRANSCRIPTIONS else None


def prompt_for(task_or_prompt: str) -> str:
    """A task name, or `task:value` for a task with a blank, becomes its prompt; anything else is a prompt already.

    Raises InputError for a task whose blank is not filled, or filled where there is none, and for an empty prompt.
    """
    name, colon, value = task_or_prompt.partition(":")
    template = TASKS.get(name)
    if template is None:
        return _nonempty(task_or_prompt.strip())
    if "{}" in template:
        if not value.strip():
            raise InputError(f"task {name!r} has a blank to fill: write {name}:WORDS, for example slot_filling:room")
        return template.replace("{}", value.strip())
    if colon:
        raise InputError(f"task {name!r} takes nothing after a colon, but {value!r} was given: write {name} alone")
    return template


def _nonempty(prompt: str) -> str:
    if not prompt:
        raise InputError("the prompt is empty: give a question, or a task name such as asr")
    return prompt


def prompt_halves(prompt: str) -> tuple[str, str]:
    """The texts before and after the audio. Each is tokenized on its own, with its own dummy prefix and no BOS."""
    return PREFIX, SUFFIX.format(prompt=prompt.strip())
