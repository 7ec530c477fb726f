"""A bundle is whole, or refused with one sentence; an export is complete, or not there."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from auricle.models.audio import synthetic_clip
from auricle.models.bundle import MANIFEST, Manifest, read_manifest, sha256_of
from auricle.models.dataclass_json import DecodeError, decode, encode, json_schema
from auricle.models.errors import BundleError, InputError
from auricle.runtime.bundle import open_bundle, verify_hashes

FILES = ("whisper.onnx", "beats.onnx", "qformer.onnx", "llm.gguf", "lora.gguf")


@pytest.fixture
def spoiled(golden_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the golden bundle to do harm to."""
    return Path(shutil.copytree(golden_bundle, tmp_path / "bundle"))


def edit_manifest(bundle: Path, change: Callable[[Any], object]) -> None:
    path = bundle / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def refused(bundle: Path) -> str:
    with pytest.raises(BundleError) as caught:
        verify_hashes(open_bundle(bundle))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_whole_bundle_opens_and_verifies(golden_bundle: Path) -> None:
    read: list[int] = []
    verify_hashes(open_bundle(golden_bundle), read.append)
    assert sum(read) == sum(entry.size for entry in read_manifest(golden_bundle).files)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_refused(spoiled: Path, name: str) -> None:
    (spoiled / name).unlink()
    assert name in refused(spoiled)


@pytest.mark.parametrize("name", FILES)
def test_truncated_file_is_refused(spoiled: Path, name: str) -> None:
    content = (spoiled / name).read_bytes()
    (spoiled / name).write_bytes(content[: len(content) // 2])
    assert name in refused(spoiled)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found(spoiled: Path, name: str) -> None:
    content = bytearray((spoiled / name).read_bytes())
    content[-5] ^= 1
    (spoiled / name).write_bytes(content)
    assert name in refused(spoiled)


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b'{"schema_version": 1}'])
def test_manifest_of_garbage_is_refused(spoiled: Path, garbage: bytes) -> None:
    (spoiled / MANIFEST).write_bytes(garbage)
    assert MANIFEST in refused(spoiled)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_unreadable_file_is_named_at_load(golden_bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    opened = Path.open

    def forbidden(path: Path, *words: Any, **named: Any) -> Any:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return opened(path, *words, **named)

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(BundleError, match=rf"{name} cannot be read \(Permission denied\)"):
        open_bundle(golden_bundle)


def test_forbidden_directory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", forbidden)
    with pytest.raises(BundleError, match=r"/some/bundle cannot be read \(Permission denied\)"):
        open_bundle("/some/bundle")


def test_directory_without_manifest_is_refused(tmp_path: Path) -> None:
    assert "not an Auricle bundle" in refused(tmp_path)
    assert "no directory" in refused(tmp_path / "nowhere")


def test_a_bundle_of_schema_2_is_read_as_it_was(spoiled: Path) -> None:
    """It had the project's version under the name that the project had then."""
    now = read_manifest(spoiled)

    def before(manifest: Any) -> None:
        manifest["schema_version"] = 2
        manifest["provenance"]["earshot"] = manifest["provenance"].pop("auricle")
        del manifest["llm"]["chats"]

    edit_manifest(spoiled, before)
    assert read_manifest(spoiled) == now
    edit_manifest(spoiled, lambda m: m["provenance"].pop("earshot"))
    assert "auricle" in refused(spoiled)


def test_what_is_too_unsure_may_be_left_unsaid_but_must_be_possible(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda m: m["generation"].pop("min_avg_logprob", None))
    assert read_manifest(spoiled).generation.min_avg_logprob is None
    edit_manifest(spoiled, lambda m: m["generation"].update(min_avg_logprob=-0.5))
    assert read_manifest(spoiled).generation.min_avg_logprob == -0.5
    edit_manifest(spoiled, lambda m: m["generation"].update(min_avg_logprob=0.5))
    assert "min_avg_logprob" in refused(spoiled)


def test_another_schema_version_is_refused(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda m: m.update(schema_version=1))
    assert "schema version 1" in refused(spoiled)


def test_wrong_interface_is_refused(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda m: m["graphs"]["whisper"]["inputs"][0].update(name="mel"))
    assert "whisper" in refused(spoiled)


def test_a_number_beyond_every_float_is_refused(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda m: m["llm"].update(lora_scale=10**400))
    assert "llm.lora_scale" in refused(spoiled)


def test_what_a_manifest_names_cannot_move_the_cursor(spoiled: Path) -> None:
    edit_manifest(spoiled, lambda m: m["llm"].update(adapter="\x1b[2J\x00\ud800"))
    assert r"names \x1b[2J\x00\ud800 but" in refused(spoiled)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b", "..\\secret"])
def test_path_out_of_the_bundle_is_refused(spoiled: Path, path: str) -> None:
    edit_manifest(spoiled, lambda m: m["files"].append({"path": path, "size": 1, "sha256": "0"}))
    assert "leads out" in refused(spoiled)


def test_files_may_be_links_as_in_a_hub_s_cache(spoiled: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for path in [each for each in spoiled.rglob("*") if each.is_file()]:
        blob = blobs / f"{path.name}.blob"
        shutil.move(path, blob)
        path.symlink_to(blob)
    verify_hashes(open_bundle(spoiled))
    with (blobs / "llm.gguf.blob").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    with pytest.raises(BundleError, match=r"llm\.gguf .* was altered"):
        verify_hashes(open_bundle(spoiled))


def onnx_with_external_data(location: str) -> bytes:
    """The smallest model with one external tensor, protobuf by hand (field numbers in runtime/bundle.py)."""

    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, len(content)]) + content

    entry = field(1, b"location") + field(2, location.encode())
    return field(7, field(5, field(8, b"w") + field(13, entry)))


@pytest.mark.parametrize(("location", "said"), [("../../w.data", "leads out"), ("w.data", "does not list")])
def test_external_data_must_be_in_the_bundle(spoiled: Path, location: str, said: str) -> None:
    content = onnx_with_external_data(location)
    (spoiled / "beats.onnx").write_bytes(content)

    def resize(manifest: Any) -> None:
        next(e for e in manifest["files"] if e["path"] == "beats.onnx")["size"] = len(content)

    edit_manifest(spoiled, resize)
    assert said in refused(spoiled)


def mutations(document: Any) -> list[tuple[str, Any]]:
    """The manifest with one thing wrong, in many ways."""

    def changed(change: Callable[[Any], object]) -> Any:
        copy = json.loads(json.dumps(document))
        change(copy)
        return copy

    return [
        ("missing", changed(lambda m: m.pop("llm"))),
        ("unknown", changed(lambda m: m.update(extra=1))),
        ("text for number", changed(lambda m: m["spec"]["whisper"].update(d_model="64"))),
        ("boolean for number", changed(lambda m: m["spec"]["whisper"].update(d_model=True))),
        ("number for text", changed(lambda m: m.update(name=3))),
        ("not one of", changed(lambda m: m["quantization"].update(encoders="int3"))),
        ("object for list", changed(lambda m: m.update(files={}))),
        ("null", changed(lambda m: m.update(prompt=None))),
        ("deep", changed(lambda m: m["graphs"]["beats"]["inputs"][0]["shape"].append(1.5))),
    ]


def test_schema_file_and_decoder_agree(golden_bundle: Path) -> None:
    document = json.loads((golden_bundle / MANIFEST).read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(json_schema(Manifest, "manifest"))
    assert validator.is_valid(document)
    assert encode(decode(Manifest, document)) == document
    for what, wrong in mutations(document):
        assert not validator.is_valid(wrong), what
        with pytest.raises(DecodeError):
            decode(Manifest, wrong)


def test_sha256_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_synthetic_clip_is_the_same_everywhere() -> None:
    clip = synthetic_clip(seed=7, seconds=0.5)
    assert clip.shape == (8000,)
    wanted = [420, -511, -2271, -3466, -5309]  # libm may differ in the last bit: one step of 16
    assert all(abs(float(x) * 32768 - w) <= 1 for x, w in zip(clip[1000:1005], wanted, strict=True))


def staging(out: Path) -> Any:
    pytest.importorskip("torch", reason="export is not installed")
    from auricle.export.bundle import Staging

    return Staging(out)


def part(calls: list[str], name: str) -> Callable[[Path], tuple[tuple[str, ...], Any]]:
    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        calls.append(name)
        (directory / name).write_text(name)
        return (name,), {"made": name}

    return build


def test_finished_parts_survive_a_kill(tmp_path: Path) -> None:
    calls: list[str] = []
    with staging(tmp_path / "out") as first:
        assert first.part("a", "key", part(calls, "a.bin")) == {"made": "a.bin"}
    with staging(tmp_path / "out") as second:
        assert second.part("a", "key", part(calls, "a.bin")) == {"made": "a.bin"}
        second.part("b", "key", part(calls, "b.bin"))
    assert calls == ["a.bin", "b.bin"]
    assert not (tmp_path / "out").exists()


def test_part_is_rebuilt_when_its_key_or_its_file_changed(tmp_path: Path) -> None:
    calls: list[str] = []
    with staging(tmp_path / "out") as first:
        first.part("a", "int8", part(calls, "a.bin"))
        first.part("a", "fp16", part(calls, "a.bin"))
        (first.directory / "a.bin").write_text("?")
        first.part("a", "fp16", part(calls, "a.bin"))
    assert len(calls) == 3


def test_two_exports_to_one_place_are_refused(tmp_path: Path) -> None:
    with staging(tmp_path / "out"), pytest.raises(InputError, match="another export"), staging(tmp_path / "out"):
        pass


def test_disk_that_cannot_lock_is_not_another_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with staging(tmp_path / "kept") as first:
        first.part("a", "key", part([], "a.bin"))
    monkeypatch.setattr("fcntl.flock", no_locks)
    for out in ("out", "kept"):
        with pytest.raises(InputError, match=r"cannot be locked \(No locks"), staging(tmp_path / out):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["kept.partial"]
    assert (tmp_path / "kept.partial" / "a.bin").exists()


def test_hashing_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="export is not installed")
    from auricle.export.bundle import Staging

    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        (directory / "a.bin").write_bytes(bytes(3 << 20))
        return ("a.bin",), None

    told: list[tuple[str, int, int]] = []
    for _ in range(2):  # built, then found again
        with Staging(tmp_path / "out", lambda *words: told.append(words)) as stage:
            stage.part("a", "key", build)
    assert told == [("hash a", n << 20, 3 << 20) for n in range(4)] * 2


def test_existing_output_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"), staging(tmp_path / "out"):
        pass


def test_full_disk_is_one_sentence(tmp_path: Path) -> None:
    def build(directory: Path) -> tuple[tuple[str, ...], Any]:
        raise OSError(28, "No space left on device")

    with staging(tmp_path / "out") as stage, pytest.raises(InputError, match="is full"):
        stage.part("a", "key", build)
