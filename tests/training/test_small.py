"""The training of `small`: sentences as they are transcribed, what is held out, CTC against a model's embeddings."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest

torch = pytest.importorskip("torch")
from auricle.export.training.bridge import Bridge, encode_views
from auricle.export.training.shards import View
from auricle.export.training.small import bridge as training
from auricle.export.training.small.bridge import Reader, Vocabulary, ctc_loss, disturb
from auricle.export.training.small.decoder import start_from_decoder
from auricle.export.training.small.joint import draw_question
from auricle.export.training.small.lexicon import LexicalBridge, Lexicon
from auricle.export.training.small.prose import sentences_of
from auricle.models.corpus import examples
from auricle.models.corpus.sentences import Utterance, sample_utterance
from auricle.models.corpus.wordnet import is_held_out, spoken
from auricle.models.encoders.qformer import QFormerSpec
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperDecoder

SPEC = QFormerSpec(32, 4, 64, 24, 8, 16, second_per_window=0.16, second_stride=0.16)


class Words:
    """A tokenizer of whole words, as transformers' are called."""

    def __init__(self, words: str) -> None:
        self.words = words.split()

    def __call__(self, text: str | list[str], add_special_tokens: bool) -> Words:
        ids = [[self.words.index(word) for word in one.split()] for one in ([text] if isinstance(text, str) else text)]
        self.input_ids = ids[0] if isinstance(text, str) else ids
        return self

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[n] for n in ids)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He said: \"Don't go -- it's late!\"", None),  # a quote inside is not spoken
        ("Don't go - it's late!", "don't go it's late"),
        ("the well-known man; a friend", "the well known man a friend"),
        ("in 1999 it rained", None),
        ("too short", None),
        ("naïve people say so", None),
        ("supercalifragilisticexpialidocious is a word", None),
    ],
)
def test_sentences_are_as_they_are_transcribed(text: str, expected: str | None) -> None:
    assert spoken(text) == expected


def test_prose_is_cut_into_whole_sentences_each_once() -> None:
    text = "The sea was calm. \u201cWe should go home,\u201d she said. The sea was calm. He was never seen ag"
    assert sentences_of(text) == ["the sea was calm"]


def test_what_is_held_out_does_not_depend_on_a_seed() -> None:
    texts = [f"sentence {n} of many" for n in range(5000)]
    assert 0.01 < sum(map(is_held_out, texts)) / len(texts) < 0.03
    assert [n for n, text in enumerate(texts[:200]) if is_held_out(text)] == [
        12,
        39,
        49,
        96,
        197,
    ]  # another split would be trained on


def views(n: int = 6) -> list[View]:
    """Clips whose speech frames spell their words: a frame's loudest channel is the word of its window."""
    generator = torch.Generator().manual_seed(0)
    found: list[View] = []
    for _ in range(n):
        words = torch.randperm(4, generator=generator)[:3].tolist()
        speech = torch.zeros(5 * 8, 24)
        for place, word in enumerate(words):
            speech[8 * (place + 1) : 8 * (place + 2), word] = 3.0
        text = " ".join("abcd"[word] for word in words)
        audio = torch.zeros(30, 8)
        found.append(View(speech.half().numpy(), audio.half().numpy(), Utterance(text, ""), None))
    return found


def test_ctc_against_embeddings_learns_to_read_windows() -> None:
    torch.manual_seed(0)
    tokenizer = Words("x a b c d")
    vocabulary = Vocabulary.of(["a b c d"], tokenizer)  # pyright: ignore[reportArgumentType]
    assert vocabulary.ids == (1, 2, 3, 4)
    bridge, reader = Bridge(SPEC), Reader(torch.randn(4, 16))
    clips = views()
    targets = vocabulary.targets(clips)
    optimizer = torch.optim.AdamW([*bridge.parameters(), *reader.parameters()], lr=3e-3)
    first = last = 0.0
    for step in range(250):
        loss = ctc_loss(reader, encode_views(bridge, clips), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (float(loss.detach()) if step == 0 else first), float(loss.detach())
    assert last < 0.3 * first
    with torch.no_grad():
        tokens = encode_views(bridge, clips)
        texts = [vocabulary.decode(reader(each)) for each in tokens]
    assert texts == [view.utterance.text for view in clips if view.utterance]


def test_a_few_drawn_tokens_weigh_as_much_as_all_that_nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    reader, tokens = Reader(torch.randn(2000, 16)), [torch.randn(12, 16)]
    reader.scale.data.fill_(4.0)  # untrained: what is said is no likelier than the rest
    with torch.no_grad():
        monkeypatch.setattr(training, "_NEGATIVES", 100_000)  # all of them
        whole = float(ctc_loss(reader, tokens, [[3, 4, 5]], length=None))
        monkeypatch.setattr(training, "_NEGATIVES", 200)
        drawn = [float(ctc_loss(reader, tokens, [[3, 4, 5]], length=None)) for _ in range(50)]
    assert sum(drawn) / len(drawn) == pytest.approx(whole, rel=0.01)


def test_the_bridge_in_training_is_the_reference() -> None:
    torch.manual_seed(0)
    bridge = Bridge(SPEC)
    for weight in bridge.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    speech, audio = torch.randn(3 * 8, 24), torch.randn(20, 8)
    real = (torch.arange(3 * 8) < len(audio)).float()[:, None]
    expected = bridge.qformer(bridge.ln_speech(speech)[None], bridge.ln_audio(audio)[None])[0]
    found = bridge(speech, torch.nn.functional.pad(audio, (0, 0, 0, 4)), real)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_bridge_that_begins_as_whispers_decoder_says_what_the_decoder_says() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "d_model": 24,
        "decoder_attention_heads": 4,
        "decoder_ffn_dim": 48,
        "decoder_layers": 2,
        "vocab_size": 40,
    }
    decoder = WhisperDecoder(WhisperConfig(**sizes, max_target_positions=8, pad_token_id=0)).eval()
    for weight in decoder.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    window = torch.randn(1, 8, 24)  # one alone: the size of what is summed is known then, and nothing is approximate
    window = (window - window.mean(-1, keepdim=True)) / window.std(-1, correction=0, keepdim=True)
    lexicon = Lexicon(decoder.embed_tokens.weight, torch.randn(40, 16))
    bridge = LexicalBridge(QFormerSpec(24, 4, 48, 24, 8, 16, second_per_window=0.16, second_stride=0.16), lexicon)
    start_from_decoder(bridge, decoder, 7, window, layers=range(2))
    with torch.no_grad():
        said = decoder(torch.tensor([[7]]), encoder_hidden_states=window).last_hidden_state[:, -1]
        found = lexicon(bridge.hidden(window[0], torch.randn(8, 8), torch.ones(8, 1)))[:, 1:]
    expected = said @ decoder.embed_tokens.weight.T
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_what_sounds_is_asked_about_and_open_english_for_its_words() -> None:
    class Asked:
        def question(self, task: str, answer: str) -> tuple[str, str]:
            return task.partition(":")[0], answer

    nothing = torch.zeros(0, 8).numpy()

    def shares(utterance: Utterance | None, sound: str | None) -> dict[str, float]:
        view = View(nothing, nothing, utterance, sound)
        rng = random.Random(0)
        tasks = [draw_question(view, cast(Any, Asked()), rng) for _ in range(400)]
        return {name: sum(task[0] == name for task in cast(Any, tasks)) / 400 for name in examples.TASKS}

    prose, order = Utterance("it was late", ""), sample_utterance(random.Random(1), "train")
    assert shares(prose, None)["asr"] == 1
    assert 0.1 < shares(prose, "rain")["audiocaption"] < 0.3 and shares(prose, "rain")["asr"] > 0.6
    assert shares(None, "rain")["audiocaption"] > 0.5
    assert 0.2 < shares(order, "rain")["audiocaption"] < 0.45 and shares(order, "rain")["speech_query"] > 0.05


def test_disturbed_clips_keep_their_length() -> None:
    for view in views(20):
        speech, audio = torch.from_numpy(view.speech).float(), torch.from_numpy(view.audio).float()
        other, sound = disturb(speech, audio)
        assert other.shape == speech.shape and len(sound) <= len(speech)
