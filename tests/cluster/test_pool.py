"""Workers that cannot start, that end, and a bundle that is sent, on a Ray that is made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from auricle.models.errors import RunError
from auricle.runtime.bundle import open_bundle
from auricle.runtime.cli.caption import CaptionCommand
from auricle.runtime.cluster.jobs import Captioned, Lost, Task
from auricle.runtime.cluster.pool import MAX_STARTS, RayPool, WorkerOptions
from auricle.runtime.cluster.worker import NO_BUNDLE, OPENED, Worker

CLIP = Task(Path("a.wav"))


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class FakeRay:
    """Every call is answered when it is asked for: answers(actor's number, method, its words)."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, answers: Callable[[int, str, tuple[Any, ...]], object]) -> None:
        self.n_actors = 0
        self.n_put = 0
        self.killed: list[Any] = []
        self._answers = answers

    def remote(self, **_: object) -> Callable[[type[Worker]], Any]:
        return lambda _worker: SimpleNamespace(remote=self._actor)

    def _actor(self, *_: object) -> Any:
        number = self.n_actors
        self.n_actors += 1
        return SimpleNamespace(open=self._method(number, "open"), caption=self._method(number, "caption"))

    def _method(self, number: int, name: str) -> Any:
        return SimpleNamespace(remote=lambda *words: Reference(number, name, words))

    def wait(self, awaited: list[Any], **_: object) -> tuple[list[Any], list[Any]]:
        return awaited[:1], awaited[1:]

    def get(self, reference: Reference) -> object:
        answer = self._answers(reference.number, reference.name, reference.words)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def put(self, data: bytes) -> int:
        self.n_put += 1
        return len(data)

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


class Reference:
    def __init__(self, number: int, name: str, words: tuple[Any, ...]) -> None:
        self.number = number
        self.name = name
        self.words = words


def pool(ray: FakeRay, n: int) -> RayPool:
    return RayPool(ray, CaptionCommand(()), open_bundle(), None, WorkerOptions(n))


def test_workers_that_end_while_they_open_the_bundle_are_not_started_for_ever() -> None:
    ray = FakeRay(lambda *_: RayError("out of memory\nand more"))
    started = pool(ray, 1)
    with pytest.raises(RunError, match=r"no worker is left: .*\(out of memory\)$"):
        while True:
            started.wait()
    assert ray.n_actors == MAX_STARTS == len(ray.killed)


def test_a_node_that_cannot_open_the_bundle_leaves_the_work_to_the_others() -> None:
    ray = FakeRay(lambda number, *_: OPENED if number else "no room (on node)")
    started = pool(ray, 2)
    while not started.idle:
        assert started.wait() == []
    assert (ray.n_actors, len(ray.killed), started.idle) == (2, 1, 1)


def test_the_bundle_is_sent_once_and_only_where_it_is_not() -> None:
    ray = FakeRay(lambda _number, _name, words: OPENED if words else NO_BUNDLE)
    started = pool(ray, 3)
    while started.idle < 3:
        started.wait()
    assert ray.n_put == 1 + len(open_bundle().manifest.files)  # each in one piece
    ray = FakeRay(lambda *_: OPENED)
    pool(ray, 1).wait()
    assert ray.n_put == 0


@pytest.mark.parametrize(
    ("error", "reason", "n_actors"),
    [(RayError("died"), "its worker ended", 2), (RayTaskError("no numbers.\nTraceback"), "no numbers", 1)],
)
def test_a_worker_that_ended_is_replaced_one_that_failed_goes_on(error: RayError, reason: str, n_actors: int) -> None:
    done = Captioned(CLIP, (), 1.0)
    tries: list[Task] = []

    def answers(_number: int, name: str, words: tuple[Any, ...]) -> object:
        if name == "open":
            return OPENED
        tries.extend(words)
        return error if len(tries) == 1 else done

    ray = FakeRay(answers)
    started = pool(ray, 1)
    started.wait()
    started.give(CLIP)
    assert started.wait() == [Lost(CLIP, reason)]
    while not started.idle:
        assert started.wait() == []
    started.give(CLIP)
    assert started.wait() == [done] and ray.n_actors == n_actors and started.n_ended == n_actors - 1
