"""The language model's own prose, as more to say: topics out of WordNet in, lower-case sentences out, a line each.

`python -m auricle.export.training.small.prose --gguf FILE --out FILE [--sentences N]` appends to what is there. A gloss
is no story: this is how sentences follow one another, and how people speak to each other.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from pathlib import Path
from typing import Any

from ....models.corpus.wordnet import WORDNET, spoken

REQUESTS = (
    "Tell a short story about {}.",
    "Write a conversation between two friends about {}.",
    "Describe {} in plain words.",
    "Write a letter to a relative in which {} matters.",
    "What would an old sailor say about {}?",
    "Write a page of a novel in which {} plays a part.",
    "Give a short speech about {}.",
    "Explain {} to a child.",
)
_PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_TOKENS, _CONTEXT = 220, 512
_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")  # typographic to plain
_SENTENCE = re.compile(r"(?<=[.!?])[\"']?\s+")


def topics(folder: Path = WORDNET) -> list[str]:
    """Nouns that are plain words, sorted."""
    found = {line.split()[0] for line in (folder / "index.noun").read_text().splitlines() if not line.startswith("  ")}
    return sorted(word.replace("_", " ") for word in found if re.fullmatch("[a-z_]{3,20}", word))


def sentences_of(text: str) -> list[str]:
    """The sentences of a text that can be spoken as they stand; its last one, which may be cut, is left out."""
    parts = _SENTENCE.split(text.translate(_QUOTES).replace("\n", " "))[:-1]
    found = [plain for part in parts if (plain := spoken(part.strip(" \"'*-")))]
    return list(dict.fromkeys(found))


def main(arguments: list[str] | None = None) -> int:
    """Writes until there are so many sentences."""
    parser = argparse.ArgumentParser(prog="python -m auricle.export.training.small.prose", description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sentences", type=int, default=40_000)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    import llama_cpp

    llm: Any = llama_cpp.Llama(str(given.gguf), n_ctx=_CONTEXT, n_threads=given.threads, verbose=False)
    known = set(given.out.read_text().split("\n")) if given.out.exists() else set[str]()
    rng = random.Random(len(known))
    words = topics()
    with given.out.open("a") as file:
        while len(known) < given.sentences:
            prompt = _PROMPT.format(rng.choice(REQUESTS).format(rng.choice(words)))
            made = llm.create_completion(
                prompt, max_tokens=_TOKENS, temperature=0.9, top_p=0.95, seed=rng.getrandbits(31), stop=["<|im_end|>"]
            )
            new = [text for text in sentences_of(made["choices"][0]["text"]) if text not in known]
            known.update(new)
            file.writelines(f"{text}\n" for text in new)
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
