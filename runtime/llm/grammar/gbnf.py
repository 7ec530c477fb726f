"""Grammars in GBNF, llama.cpp's notation: rules in, the mask of the next token out.

Before every token the grammar takes away what may not come next, so that an answer that ends by itself has the form.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....models.errors import InputError, RunError
from ...system.stderr import captured_stderr
from ..llama import Floats, Model, llama_cpp, reason, silence

_c: Any = llama_cpp  # its functions are decorated at import and have no static types
N_LIKELY = 64
_DEEPEST = 200  # groups in groups
_LONGEST_CAUSE = 120  # characters
_MOST_DIGITS = 9  # of a repetition
_PARSER = "error parsing grammar:"
# What is in quotes, brackets and comments: no rules. One that is not closed goes to the end, or each quote of thousands
# would look for its end there.
_TEXT = re.compile(r'"(?:\\[\s\S]|[^"\\])*(?:"|\\?\Z)|\[(?:\\[\s\S]|[^\]\\])*(?:\]|\\?\Z)|#.*')
_COUNTS = re.compile(r"\{\s*(\d+)\s*,\s*(\d+)\s*\}")
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data


class Grammar:
    """A form, and how far the answer has come in it. One answer at a time; close it before its model."""

    def __init__(self, model: Model, gbnf: str) -> None:
        """gbnf: rules in llama.cpp's notation, from `root` on. Raises InputError when they are none."""
        self._handle: Any = None
        _check_counts(gbnf)
        _check_depth(gbnf)
        silence()
        with captured_stderr() as printed:  # its parser prints, what comes after logs
            self._handle = _c.llama_sampler_init_grammar(model.vocab_handle, gbnf.encode(), b"root")
        if not self._handle:
            causes = (line.partition(_PARSER)[2].strip().removesuffix(" at") for line in printed if _PARSER in line)
            why = next((f" ({_shown(cause)})" for cause in causes), reason())
            raise InputError(
                f"llama.cpp cannot read this grammar{why}: name no rule that is not there, or simplify the schema"
            )

    def mask(self, logits: Floats) -> Floats:
        """Logits [vocab] with what may not come next at -inf, and with it all but the 64 likeliest if one of them may.

        To ask about every token takes longer than a small model's pass. EOS may come when the answer is whole.
        Raises RunError when nothing may.
        """
        for n in (N_LIKELY, len(logits)):
            ids = np.argpartition(logits, -n)[-n:] if n < len(logits) else np.arange(n)
            possible = self._apply(ids, logits[ids])
            if possible.max() > -np.inf:
                masked = np.full_like(logits, -np.inf)
                masked[ids] = possible
                return masked
        raise RunError("no token of this model fits into the form that was asked for: simplify it")

    def _apply(self, ids: npt.NDArray[np.intp], logits: Floats) -> Floats:
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits
        pointer = ctypes.cast(candidates.ctypes.data, _c.llama_token_data_p)
        array = _c.llama_token_data_array(data=pointer, size=len(ids), selected=-1, sorted=False)
        _c.llama_sampler_apply(self._handle, ctypes.byref(array))
        return candidates["logit"]

    def accept(self, token: int) -> None:
        """This token came next; it must be one that `mask` left."""
        _c.llama_sampler_accept(self._handle, token)

    def reset(self) -> None:
        """Back to the beginning, for another answer."""
        _c.llama_sampler_reset(self._handle)

    def close(self) -> None:
        """Free the rules. Twice does no harm."""
        handle, self._handle = self._handle, None
        if handle:
            _c.llama_sampler_free(handle)


def _shown(cause: str) -> str:
    """Where the parser stopped it prints all that is left of the rules."""
    return cause if len(cause) <= _LONGEST_CAUSE else f"{cause[:_LONGEST_CAUSE]}..."


def _check_counts(gbnf: str) -> None:
    """Raises InputError for a repetition such as {2,1}, which llama.cpp unrolls until there is no memory left.

    And for numbers that Python itself refuses to read.
    """
    for least, most in _COUNTS.findall(_TEXT.sub("", gbnf)):
        if max(len(least), len(most)) > _MOST_DIGITS:
            raise InputError(f"the grammar repeats something {_shown(most)} times: give numbers that are possible")
        if int(least) > int(most):
            raise InputError(f"the grammar repeats something {{{least},{most}}} times: write the smaller number first")


def _check_depth(gbnf: str) -> None:
    """Raises InputError for groups within groups that llama.cpp, which reads them recursively, has no stack for."""
    depth = deepest = 0
    for bracket in re.findall(r"[()]", _TEXT.sub("", gbnf)):
        depth += 1 if bracket == "(" else -1
        deepest = max(deepest, depth)
    if deepest > _DEEPEST:
        raise InputError(f"the grammar's groups lie {deepest} deep in each other, {_DEEPEST} can be read: simplify it")


def read_grammar(path: Path) -> str:
    """The rules in a .gbnf file. Raises InputError."""
    rules = read_text(path, "a grammar in llama.cpp's notation")
    if "::=" not in rules or not re.search(r"(?m)^\s*root\s*::=", rules):
        raise InputError(f"{path} has no rule `root ::= ...`: give a grammar in llama.cpp's notation (GBNF)")
    return rules


def read_text(path: Path, what: str) -> str:
    """A file in UTF-8, with or without a byte-order mark. what: what it should be. Raises InputError."""
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte-order mark
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give the file of {what}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text at byte {error.start}: give the file of {what}") from None
