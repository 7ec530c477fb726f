"""What a job's words name: files, folders, globs, lists -> clips, each once, the largest first."""

from __future__ import annotations

from pathlib import Path

import pytest
from auricle.models.errors import InputError
from auricle.runtime.cluster.inputs import find_clips


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    sizes = {"a.wav": 1, "deep/b.FLAC": 3, "deep/er/c.mp3": 2}
    sizes |= {"deep/notes.txt": 9, ".hidden/d.wav": 9, "deep/.e.wav": 9}
    for name, size in sizes.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.wav\n\n{tmp_path}/deep/*.FLAC\n", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["{}"], ["b.FLAC", "c.mp3", "a.wav"]),
        (["{}/a.wav", "{}/deep/../a.wav", "{}"], ["b.FLAC", "c.mp3", "a.wav"]),
        (["{}/deep/notes.txt"], ["notes.txt"]),  # who names a file means it
        (["{}/**/*.mp3"], ["c.mp3"]),
        (["{}/d*"], ["b.FLAC", "c.mp3"]),
        (["@{}/list.txt"], ["b.FLAC", "a.wav"]),
    ],
)
def test_the_clips_that_are_meant(corpus: Path, words: list[str], names: list[str]) -> None:
    found = find_clips([word.format(corpus) for word in words])
    assert [path.name for path in found] == names and all(path.is_absolute() for path in found)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("{}/none.wav", "is not there"),
        ("{}/*.ogg", "is not there"),
        ("@{}/none.txt", "cannot be read"),
    ],
)
def test_what_is_not_there_is_refused(corpus: Path, word: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        find_clips([word.format(corpus)])


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no clip is in"):
        find_clips([str(tmp_path)])
