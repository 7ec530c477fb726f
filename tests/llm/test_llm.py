"""The language model against golden numbers, and what its session promises: kept prefix, room, no leaks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from auricle.models.bundle import Manifest, read_manifest
from auricle.models.errors import BundleError, InputError, RunError
from auricle.models.families.salmonn import TASKS, prompt_halves
from auricle.runtime.llm import weights
from auricle.runtime.llm.llama import Context, Floats, Ints, Model
from auricle.runtime.llm.options import LlmOptions
from auricle.runtime.llm.sampling import Generation
from auricle.runtime.llm.session import Llm
from auricle.runtime.system import machine as cores
from auricle.runtime.system.machine import cpu_quota
from memory import held_bytes

SHORT = Generation(max_new_tokens=16)
Clip = dict[str, np.ndarray]


def open_llm(bundle: Path, adapter: bool = False, **options: object) -> Llm:
    manifest = read_manifest(bundle)
    lora = bundle / "lora.gguf" if adapter else None
    return Llm(bundle / "llm.gguf", manifest, lora, LlmOptions(n_threads=1, **options))  # pyright: ignore


@pytest.fixture(scope="module")
def llm(golden_bundle: Path) -> Iterator[Llm]:
    with open_llm(golden_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def exact(golden_bundle: Path) -> Iterator[Llm]:
    """Float32 cache: the same sums, whatever was in the cache before."""
    with open_llm(golden_bundle, adapter=True, kv_type="f32") as opened:
        yield opened


@pytest.fixture(scope="module")
def manifest(golden_bundle: Path) -> Manifest:
    return read_manifest(golden_bundle)


@pytest.fixture(scope="module")
def jfk(golden: Path) -> Clip:
    with np.load(golden / "salmonn-tiny" / "jfk_11s.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def prompt_of(clip: Clip) -> str:
    return str(clip["prompt"]).partition("</Speech> ")[2].removesuffix("\nASSISTANT:")


def answer(llm: Llm, clip: Clip, generation: Generation = SHORT) -> list[int]:
    llm.prefill(clip["audio_tokens"], prompt_of(clip), generation)
    return list(llm.generate(generation))


def always(logits: Floats) -> Callable[..., Floats]:
    """A context that computes nothing."""

    def decode_ids(*_: object) -> Floats:
        return logits

    return decode_ids


class TestGolden:
    def test_ids_of_all_25_prompts(self, llm: Llm, golden: Path) -> None:
        expected = json.loads((golden / "vicuna_prompt_ids.json").read_text(encoding="utf-8"))
        assert expected.keys() == TASKS.keys()
        for task, ids in expected.items():
            before, after = prompt_halves(TASKS[task])
            assert llm.prompts.tokenize(before) == ids["before_ids"], task
            assert llm.prompts.tokenize(after) == ids["after_ids"], task
            assert 2565 not in ids["after_ids"]  # what joint tokenization would make of `></`

    def test_prefill_is_one_bos_prefix_audio_and_suffix(self, llm: Llm, clip: Clip) -> None:
        llm.prefill(clip["audio_tokens"], prompt_of(clip))
        assert llm.n_past == 96 + len(llm.prompts.tokenize(prompt_halves(prompt_of(clip))[1]))

    def test_next_logits(self, llm: Llm, exact: Llm, clip: Clip) -> None:
        expected = clip["next_logits"][:32000]
        for opened, tolerance in ((llm, 2e-2), (exact, 1e-3)):
            logits = opened.prefill(clip["audio_tokens"], prompt_of(clip))
            assert logits.shape == (32000,)
            np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)

    @pytest.mark.parametrize("beams", [1, 4])
    def test_ids_and_text(self, llm: Llm, clip: Clip, beams: int) -> None:
        ids = answer(llm, clip, Generation(max_new_tokens=16, beams=beams))
        assert [1, *ids] == clip[f"ids_beams{beams}"].tolist()
        assert "<s>" + llm.text(ids) == str(clip[f"text_beams{beams}"])


class TestSession:
    def test_a_question_after_others_is_answered_as_by_a_fresh_session(
        self, exact: Llm, golden_bundle: Path, jfk: Clip
    ) -> None:
        audio = jfk["audio_tokens"]
        exact.prefill(audio[::-1].copy(), "Another question?", Generation(beams=3))
        list(exact.generate(Generation(max_new_tokens=20, beams=3)))
        used = exact.prefill(audio, prompt_of(jfk))
        with open_llm(golden_bundle, kv_type="f32") as fresh:
            np.testing.assert_allclose(used, fresh.prefill(audio, prompt_of(jfk)), rtol=0, atol=1e-5)

    def test_the_prefix_is_computed_once(self, golden_bundle: Path, jfk: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[list[int]] = []
        decode_ids = Context.decode_ids

        def count(context: Context, ids: Ints, positions: Ints, sequences: Ints, outputs: Ints) -> Floats:
            read.append(list(ids))
            return decode_ids(context, ids, positions, sequences, outputs)

        monkeypatch.setattr(Context, "decode_ids", count)
        with open_llm(golden_bundle) as llm:
            for task in ("asr", "audiocaption"):
                llm.prefill(jfk["audio_tokens"], TASKS[task])
        assert [len(ids) for ids in read] == [8, 21, 14]
        assert read[0][0] == 1

    def test_an_answer_left_halfway_does_no_harm(self, llm: Llm, jfk: Clip) -> None:
        for beams in (1, 4):
            generation = Generation(max_new_tokens=16, beams=beams)
            llm.prefill(jfk["audio_tokens"], prompt_of(jfk), generation)
            unfinished = llm.generate(generation)
            next(unfinished)
            assert answer(llm, jfk) == jfk["ids_beams1"][1:].tolist()
            with pytest.raises(RunError, match="another question"):
                list(unfinished)

    def test_a_draft_is_checked_in_one_batch(self, exact: Llm, jfk: Clip) -> None:
        """What live captions build on: one pass over a draft gives the tokens of one by one."""
        logits = exact.prefill(jfk["audio_tokens"], prompt_of(jfk))
        start, draft = exact.n_past, jfk["ids_beams1"][1:].tolist()
        checked = exact.feed(draft[:-1], every=True)
        assert [int(logits.argmax()), *checked.argmax(axis=1).tolist()] == draft
        exact.rewind(start + 3)
        np.testing.assert_allclose(exact.feed(draft[3:4])[0], checked[3], rtol=0, atol=1e-5)
        assert exact.n_past == start + 4

    def test_long_inputs_go_in_batches(self, exact: Llm, jfk: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = exact.prefill(jfk["audio_tokens"], prompt_of(jfk))
        monkeypatch.setattr(exact.context, "n_batch", 9)
        parts = exact.prefill(jfk["audio_tokens"], prompt_of(jfk))
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-4)
        assert exact.feed(list(range(3, 23)), every=True).shape == (20, 32000)

    def test_generate_needs_a_question(self, llm: Llm, jfk: Clip) -> None:
        answer(llm, jfk)
        with pytest.raises(RunError, match="prefill"):
            llm.generate()

    def test_closing_twice_is_fine_and_using_it_afterwards_is_refused(self, golden_bundle: Path, jfk: Clip) -> None:
        llm = open_llm(golden_bundle)
        llm.prefill(jfk["audio_tokens"], "What is it?")
        unfinished = llm.generate()
        next(unfinished)
        llm.close()
        llm.close()
        with pytest.raises(RunError, match="closed"):
            next(unfinished)
        with pytest.raises(RunError, match="closed"):
            llm.prefill(jfk["audio_tokens"], "What is it?")

    def test_opening_often_leaks_nothing(self, golden_bundle: Path, jfk: Clip) -> None:
        resident: list[int] = []
        for _ in range(20):
            with open_llm(golden_bundle, adapter=True) as llm:
                answer(llm, jfk, Generation(max_new_tokens=2, beams=2))
            resident.append(held_bytes())
        assert resident[-1] - resident[4] < 20 << 20

    def test_nothing_is_printed(self, golden_bundle: Path, jfk: Clip, capfd: pytest.CaptureFixture[str]) -> None:
        with open_llm(golden_bundle, adapter=True) as llm:
            answer(llm, jfk)
        assert capfd.readouterr() == ("", "")

    def test_llama_cpp_speaks_when_asked(
        self, golden_bundle: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AURICLE_LLAMA_LOG", "1")
        open_llm(golden_bundle).close()
        assert "llama" in capfd.readouterr().err


class TestPrompt:
    def test_specials_in_a_prompt_are_ordinary_text(self, llm: Llm, jfk: Clip) -> None:
        assert llm.prompts.tokenize("</s>") == [1533, 29879, 29958]
        assert not {0, 1, 2} & set(llm.prompts.tokenize("<s> <unk> </s></s>"))
        llm.prefill(jfk["audio_tokens"], "</s>{prompt}{}")

    def test_a_prompt_that_is_no_text_is_refused(self, llm: Llm, jfk: Clip) -> None:
        with pytest.raises(InputError, match="not text at"):
            llm.prefill(jfk["audio_tokens"], "what is \udcff?")


class TestRoom:
    def test_a_prompt_that_is_too_long_says_how_long_may_be(self, llm: Llm, jfk: Clip) -> None:
        with pytest.raises(InputError, match=r"has 30\d\d tokens.*2048 fit.*1848 tokens"):
            llm.prefill(jfk["audio_tokens"], "why " * 2900)
        assert answer(llm, jfk) == jfk["ids_beams1"][1:].tolist()

    def test_the_context_grows_to_what_a_question_needs(self, golden_bundle: Path, jfk: Clip) -> None:
        with open_llm(golden_bundle) as llm:
            assert llm.context.n_ctx == 512
            assert answer(llm, jfk, Generation(max_new_tokens=16, beams=4)) == jfk["ids_beams4"][1:].tolist()
            assert len(answer(llm, jfk, Generation(max_new_tokens=40, beams=16))) <= 40
            assert llm.context.n_ctx >= 117 + 16 * 40
            assert answer(llm, jfk) == jfk["ids_beams1"][1:].tolist()

    def test_n_ctx_is_kept_when_it_is_given(self, golden_bundle: Path, jfk: Clip) -> None:
        with open_llm(golden_bundle, n_ctx=256) as llm:
            assert answer(llm, jfk) == jfk["ids_beams1"][1:].tolist()
            with pytest.raises(InputError, match="4 beams of 100 new ones, but 256 fit"):
                llm.prefill(jfk["audio_tokens"], prompt_of(jfk), Generation(max_new_tokens=100, beams=4))
            llm.prefill(jfk["audio_tokens"], prompt_of(jfk), SHORT)
            with pytest.raises(InputError, match="256 fit"):
                llm.generate(Generation(max_new_tokens=140))
            with pytest.raises(RunError, match="no room for 200 more"):
                llm.feed([5] * 200)

    def test_a_full_answer_has_max_new_tokens(self, llm: Llm, jfk: Clip) -> None:
        assert len(answer(llm, jfk, Generation(max_new_tokens=1))) == 1
        assert len(answer(llm, jfk, Generation(max_new_tokens=1, beams=3))) == 1


class TestSampling:
    def test_the_same_seed_says_the_same(self, llm: Llm, jfk: Clip) -> None:
        def said(seed: int) -> list[int]:
            return answer(llm, jfk, Generation(max_new_tokens=16, temperature=1.0, seed=seed))

        assert said(1) == said(1)
        assert said(1) != said(2)

    def test_a_repetition_penalty_ends_repetition(self, llm: Llm, jfk: Clip) -> None:
        for beams in (1, 4):
            ids = answer(llm, jfk, Generation(max_new_tokens=16, beams=beams, repetition_penalty=10.0))
            assert len(set(ids)) == 16

    def test_specials_are_never_chosen(self, llm: Llm, jfk: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
        """The likeliest are BOS and UNK, then 77, then nothing but EOS."""
        likely = np.zeros((4, 32000), np.float32)
        likely[:, [1, 0, 77]] = 90, 80, 70
        llm.prefill(jfk["audio_tokens"], prompt_of(jfk))
        monkeypatch.setattr(Context, "decode_ids", always(likely))
        generated = llm.generate()
        next(generated)
        assert next(generated) == 77
        likely[:, 2] = 100
        assert list(generated) == []

    def test_logits_that_are_no_numbers_are_an_error(
        self, llm: Llm, jfk: Clip, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        llm.prefill(jfk["audio_tokens"], prompt_of(jfk))
        monkeypatch.setattr(Context, "decode_ids", always(np.full((1, 32000), np.nan, np.float32)))
        generated = llm.generate()
        next(generated)
        with pytest.raises(RunError, match="no numbers"):
            next(generated)


class TestLora:
    def test_the_scale_is_chosen_at_run_time(self, exact: Llm, jfk: Clip) -> None:
        def logits() -> np.ndarray:
            return exact.prefill(jfk["audio_tokens"], prompt_of(jfk))

        trained = logits()
        exact.set_lora_scale(0.0)
        assert np.abs(logits() - trained).max() > 1
        exact.set_lora_scale(4.0)
        np.testing.assert_allclose(logits(), trained, rtol=0, atol=1e-3)

    def test_a_scale_given_at_opening_is_the_same_scale(self, golden_bundle: Path, exact: Llm, jfk: Clip) -> None:
        exact.set_lora_scale(2.5)
        later = exact.prefill(jfk["audio_tokens"], prompt_of(jfk))
        exact.set_lora_scale(4.0)
        with open_llm(golden_bundle, adapter=True, kv_type="f32", lora_scale=2.5) as llm:
            np.testing.assert_allclose(llm.prefill(jfk["audio_tokens"], prompt_of(jfk)), later, rtol=0, atol=1e-5)

    def test_a_scale_without_an_adapter_names_the_option(self, golden_bundle: Path, llm: Llm) -> None:
        with pytest.raises(InputError, match="--lora adapter or --lora both"):
            open_llm(golden_bundle, lora_scale=2.0)
        with pytest.raises(InputError, match="--lora adapter or --lora both"):
            llm.set_lora_scale(2.0)

    def test_a_scale_must_be_a_number(self, golden_bundle: Path) -> None:
        with pytest.raises(InputError, match="lora_scale=nan"):
            open_llm(golden_bundle, adapter=True, lora_scale=float("nan"))


class TestFaults:
    def test_a_missing_file(self, tmp_path: Path, manifest: Manifest, golden_bundle: Path) -> None:
        with pytest.raises(BundleError, match=r"nowhere\.gguf is not there"):
            Llm(tmp_path / "nowhere.gguf", manifest, None, LlmOptions())
        with pytest.raises(BundleError, match=r"lora\.gguf is not there"):
            Llm(golden_bundle / "llm.gguf", manifest, tmp_path / "lora.gguf", LlmOptions())

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_a_cut_file(self, tmp_path: Path, manifest: Manifest, golden_bundle: Path, share: float) -> None:
        for name in ("llm.gguf", "lora.gguf"):
            whole = (golden_bundle / name).read_bytes()
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BundleError, match=r"cannot read .*llm\.gguf \(\w+"):
            Llm(tmp_path / "llm.gguf", manifest, None, LlmOptions())
        with pytest.raises(BundleError, match=r"cannot read .*lora\.gguf"):
            Llm(golden_bundle / "llm.gguf", manifest, tmp_path / "lora.gguf", LlmOptions())

    def test_an_adapter_is_no_model_and_a_model_no_adapter(
        self, tmp_path: Path, manifest: Manifest, golden_bundle: Path
    ) -> None:
        shutil.copy(golden_bundle / "lora.gguf", tmp_path / "swapped.gguf")
        with pytest.raises(BundleError, match="cannot read"):
            Llm(tmp_path / "swapped.gguf", manifest, None, LlmOptions())
        with pytest.raises(BundleError, match="cannot read"):
            Llm(golden_bundle / "llm.gguf", manifest, golden_bundle / "llm.gguf", LlmOptions())

    @pytest.mark.parametrize("wrong", [{"hidden": 64}, {"n_layers": 3}, {"n_heads": 8}, {"vocab": 32001}])
    def test_a_model_of_other_sizes(self, manifest: Manifest, golden_bundle: Path, wrong: dict[str, int]) -> None:
        spec = replace(manifest.spec, llm=replace(manifest.spec.llm, **wrong))  # pyright: ignore
        (name,) = wrong
        with pytest.raises(BundleError, match=f"has {name} .* manifest says {wrong[name]}"):
            Llm(golden_bundle / "llm.gguf", replace(manifest, spec=spec), None, LlmOptions())

    def test_another_tokenizer(self, manifest: Manifest, golden_bundle: Path) -> None:
        prompt = replace(manifest.prompt, prefix_ids=(1, 3148, 1002))
        with pytest.raises(BundleError, match="tokenizer"):
            Llm(golden_bundle / "llm.gguf", replace(manifest, prompt=prompt), None, LlmOptions())

    def test_another_adapter(self, manifest: Manifest, golden_bundle: Path) -> None:
        spec = replace(manifest.spec, lora=replace(manifest.spec.lora, alpha=16.0))
        with pytest.raises(BundleError, match="alpha 32, but the manifest says 16"):
            Llm(
                golden_bundle / "llm.gguf",
                replace(manifest, spec=spec),
                golden_bundle / "lora.gguf",
                LlmOptions(),
            )

    def test_audio_tokens_of_another_width(self, llm: Llm) -> None:
        for shape in ((88, 64), (1, 88, 128)):
            with pytest.raises(InputError, match=r"reads \[n, 128\]"):
                llm.prefill(np.zeros(shape, np.float32), "What is it?")

    @pytest.mark.parametrize(
        "wrong",
        [{"n_ctx": 0}, {"n_ctx": 1 << 32}, {"n_threads": 0}, {"n_threads": 513}, {"kv_type": "q5_0"}],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_impossible_options(self, wrong: dict[str, object]) -> None:
        (name,) = wrong
        with pytest.raises(InputError, match=f"{name}="):
            LlmOptions(**wrong)  # pyright: ignore[reportArgumentType]

    def test_hardware_threads_of_one_core_count_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
        monkeypatch.setattr(cores, "cpu_quota", lambda: None)
        assert cores.default_threads(tmp_path) == 4
        for cpu, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
            (tmp_path / f"cpu{cpu}/topology").mkdir(parents=True)
            (tmp_path / f"cpu{cpu}/topology/thread_siblings_list").write_text(siblings + "\n")
        assert cores.default_threads(tmp_path) == 2
        monkeypatch.setattr(cores, "cpu_quota", lambda: 1.0)
        assert cores.default_threads(tmp_path) == 1

    @pytest.mark.parametrize("said", [None, "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
    def test_openmp_is_patient_unless_it_was_told_otherwise(
        self, monkeypatch: pytest.MonkeyPatch, said: str | None
    ) -> None:
        for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
            monkeypatch.delenv(name, raising=False)
        if said:
            monkeypatch.setenv(said, "7")
        before = dict(os.environ)
        with cores.patient_openmp():
            assert os.environ.get("GOMP_SPINCOUNT") == (before.get("GOMP_SPINCOUNT") if said else cores.SPINS)
        assert dict(os.environ) == before

    def test_openmp_is_loaded_with_that_setting(self) -> None:
        """libgomp reads it once; whatever of the runtime is imported first must not load it without."""
        script = (
            "import builtins, os, sys\n"
            "real = builtins.__import__\n"
            "def watched(name, *rest):\n"
            "    if name == 'llama_cpp' and name not in sys.modules: print(os.environ.get('GOMP_SPINCOUNT'))\n"
            "    return real(name, *rest)\n"
            "builtins.__import__ = watched\n"
            "import auricle.runtime.engine\n"
        )
        environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert run.stdout.split()[0] == cores.SPINS

    def test_a_containers_quota_counts(self, tmp_path: Path) -> None:
        (tmp_path / "cpu.max").write_text("150000 100000")
        assert cpu_quota(tmp_path / "cpu.max") == 1.5
        (tmp_path / "cpu.max").write_text("max 100000")
        assert cpu_quota(tmp_path / "cpu.max") is None
        assert cpu_quota(tmp_path / "no file") is None


@pytest.mark.parametrize("kv_type", ["q8_0", "q4_0"])
def test_a_quantized_cache_is_smaller_and_says_nearly_the_same(
    golden_bundle: Path, jfk: Clip, kv_type: str, manifest: Manifest
) -> None:
    """Flash attention reads it; the logits move by what so few bits lose."""
    with open_llm(golden_bundle) as plain, open_llm(golden_bundle, kv_type=kv_type) as small:
        logits = [llm.prefill(jfk["audio_tokens"], prompt_of(jfk)) for llm in (plain, small)]
    error = np.sqrt(np.mean((logits[1] - logits[0]) ** 2) / np.mean(logits[0] ** 2))
    assert 0 < error < {"q8_0": 0.02, "q4_0": 0.2}[kv_type]
    assert manifest.spec.llm.kv_bytes(512, kv_type) < 0.54 * manifest.spec.llm.kv_bytes(512)


def test_heads_too_narrow_for_a_quantized_cache_are_refused(salm_bundle: Path) -> None:
    with pytest.raises(InputError, match="heads are 16 wide: give f16"):
        Llm(salm_bundle / "llm.gguf", read_manifest(salm_bundle), None, LlmOptions(kv_type="q8_0"))


@pytest.mark.parametrize(
    ("asked", "worth", "repacked"), [(None, True, True), (None, False, False), (True, False, True)]
)
def test_weights_are_repacked_where_it_pays_or_is_asked_for(
    golden_bundle: Path, monkeypatch: pytest.MonkeyPatch, asked: bool | None, worth: bool, repacked: bool
) -> None:
    told: list[bool] = []

    def opened(path: Path, n_gpu_layers: int, repack: bool) -> Model:
        told.append(repack)
        return Model(path, n_gpu_layers, repack)

    monkeypatch.setattr(weights, "Model", opened)
    monkeypatch.setattr(weights, "worth_repacking", lambda _: worth)
    with open_llm(golden_bundle, repack=asked):
        assert told == [repacked]
