"""The compute thread: where llama.cpp's passes are made, whoever asks for them."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from auricle.runtime.engine import EngineOptions, load
from auricle.runtime.llm import llama
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.system.compute_thread import ComputeThread


def idents(n: int, call: Any) -> set[int]:
    """The threads in which a call is made that n threads ask for."""
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == n
    return {*found}


def test_calls_of_all_threads_are_made_in_one() -> None:
    compute = ComputeThread("test")
    (ident,) = idents(8, lambda: compute.run(threading.get_ident))
    assert ident != threading.get_ident() and compute.run(threading.get_ident) == ident


def test_what_a_call_raises_comes_to_who_asked_and_the_next_is_made() -> None:
    compute = ComputeThread("test")
    with pytest.raises(ZeroDivisionError):
        compute.run(lambda: 1 / 0)
    assert compute.run(lambda: 2) == 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_a_signal_waits_until_the_call_is_over() -> None:
    compute = ComputeThread("test")
    over: list[bool] = []

    def handler(*_: object) -> None:
        raise KeyboardInterrupt

    def call() -> None:
        time.sleep(0.3)
        over.append(True)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            compute.run(call)
        assert over, "what the pass writes to must not be freed under it"
    finally:
        signal.signal(signal.SIGALRM, before)
    assert compute.run(lambda: 3) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_starts_its_own() -> None:
    compute = ComputeThread("test")
    compute.run(lambda: None)
    if (child := os.fork()) == 0:
        os._exit(compute.run(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("n_threads", [1, 2])
def test_passes_of_several_threads_share_one_unless_they_need_no_team(
    n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two teams of OpenMP make every barrier sleep, and a pass three times as long."""
    made_in: list[int] = []
    decode = llama._c.llama_decode  # pyright: ignore[reportPrivateUsage]

    def noting(*arguments: Any) -> Any:
        made_in.append(threading.get_ident())
        return decode(*arguments)

    monkeypatch.setattr(llama._c, "llama_decode", noting)  # pyright: ignore[reportPrivateUsage]
    with load(options=EngineOptions(llm=LlmOptions(n_threads=n_threads))) as engine:
        clip = engine.bundle.path("clips/command.wav")
        texts = {engine.ask(clip, "asr").text}
        asked_in = idents(1, lambda: [texts.add(engine.ask(clip, "asr").text), threading.get_ident()][1])
    assert len(texts) == 1
    if n_threads == 1:
        assert {*made_in} == {threading.get_ident(), *asked_in}
    else:
        assert len({*made_in}) == 1 and not {*made_in} & {threading.get_ident(), *asked_in}
