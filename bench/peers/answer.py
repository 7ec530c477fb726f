"""Contestants for a whole answer: the bundle in our engine, and the same model in torch, both greedy.

With a checkpoint, torch reads what the bundle was made from, and the same tokens must come out. Without, its weights
are random, in the bundle's shape; a language model of many layers is measured with few of them, twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models.audio import Waveform
from ...models.bundle import Manifest, read_manifest
from ...models.errors import InputError
from ...models.families.salmonn import TASKS, SalmonnSpec
from ..result import OURS
from .onnx_graphs import salmonn_of, torch_with
from .task import Contestant, Outcome, Task, Work, no_progress

if TYPE_CHECKING:
    from ...export.families.salmonn import SalmonnExport

FEW_LAYERS = (4, 8)
"""Of the language model, where all of them are too many for torch in fp32."""
DEMO_CLIP = "shopping.wav"
_PROMPT = TASKS["asr"]


def clip(task: Task, manifest: Manifest) -> Waveform:
    """A sentence that lies in the demo's bundle, else real speech, no longer than the model's window."""
    from ...runtime.audio.decode import read_audio

    own = _bundle(task) / "clips" / DEMO_CLIP
    if own.is_file():
        waveform = read_audio(own)
    else:
        with resources.as_file(resources.files("auricle.export") / "jfk.wav") as path:
            waveform = read_audio(path)
    return waveform[: manifest.spec.n_samples]


def open_ours(task: Task) -> Work:
    """engine.ask; with our own choice of threads unless a number was asked for."""
    from ...runtime.engine import EngineOptions, load
    from ...runtime.llm.options import LlmOptions
    from ...runtime.llm.sampling import Generation
    from ...runtime.system.ort import OrtOptions

    threads = None if task.own_threads else task.threads
    options = EngineOptions(OrtOptions("cpu", threads), LlmOptions(n_threads=threads, n_gpu_layers=0))
    engine = load(_bundle(task), options)
    endless = task.checkpoint is None  # random weights may stop anywhere: torch goes on too
    waveform = clip(task, engine.bundle.manifest)
    generation = Generation(max_new_tokens=task.tokens, guard=False, ignore_eos=endless)

    def run() -> Outcome:
        answer = engine.ask(waveform, _PROMPT, generation)
        return Outcome(tokens=tuple(token for final in answer.segments for token in final.token_ids))

    return Work(run)


@dataclass(frozen=True)
class _Torch:
    """The model as transformers has it, and the ids around the audio."""

    whisper: Any
    beats: Any
    qformer: Any
    llm: Any


def open_torch(n_layers: int | None) -> Callable[[Task], Work]:
    """Encoders, Blip2 Q-Former and LlamaForCausalLM.generate with its cache. n_layers: None, all of them."""

    def opened(task: Task) -> Work:
        from ...models.encoders.beats import fbank
        from ...models.encoders.whisper import log_mel

        torch = torch_with(task.threads)
        manifest = read_manifest(_bundle(task))
        spec = salmonn_of(manifest)
        waveform = clip(task, manifest)
        n_positions = spec.heard_positions(len(waveform))
        n_frames = None if n_positions is None else 2 * n_positions
        before, after = _ids(task, manifest)
        parts = _read(task, manifest) if task.checkpoint else _random(manifest, n_layers, task.threads)
        embed = parts.llm.get_input_embeddings()
        stop = manifest.prompt.eos_id if task.checkpoint else None
        choice: dict[str, Any] = {"max_new_tokens": task.tokens, "do_sample": False, "use_cache": True}
        choice |= {"eos_token_id": stop, "pad_token_id": manifest.prompt.eos_id}

        def run() -> Outcome:
            with torch.inference_mode():
                speech = parts.whisper(torch.from_numpy(log_mel(waveform, spec.whisper, n_frames)))
                audio = parts.beats(torch.from_numpy(fbank(waveform)))
                audio_tokens = parts.qformer(speech, audio)
                prompt = torch.cat([embed(torch.tensor([before])), audio_tokens, embed(torch.tensor([after]))], dim=1)
                mask = torch.ones(prompt.shape[:2], dtype=torch.long)
                ids = parts.llm.generate(inputs_embeds=prompt, attention_mask=mask, **choice)[0].tolist()
            return Outcome(tokens=tuple(i for i in ids if i != stop))

        return Work(run)

    return opened


def _read(task: Task, manifest: Manifest) -> _Torch:
    """The research checkpoint, LoRA merged in float32."""
    from ...export.families.salmonn import open_parts
    from ...export.formats.tensor_names import EMBEDDING, HEAD

    spec = salmonn_of(manifest)
    parts = open_parts(checkpoint_options(task, spec))
    encoder: Any = parts.whisper.encoder
    encoder.set_attn_implementation("sdpa")
    llm = _llama(manifest, spec.llm.n_layers)
    state: dict[str, Any] = {}
    for name, tensor in llm.state_dict().items():
        source = EMBEDDING if name == HEAD and parts.llm.spec.tied else name
        weight = parts.llm.weights.get(source)[: tensor.shape[0]].float()
        _, _, layer, *rest = (*name.split("."), "", "")
        target = rest[1] if rest[:1] == ["self_attn"] else ""
        state[name] = parts.lora.merged(weight, int(layer), target, manifest.llm.lora_scale) if target else weight
    llm.load_state_dict(state)
    return _Torch(parts.whisper, parts.beats, parts.qformer.reference, llm)


def checkpoint_options(task: Task, spec: SalmonnSpec) -> SalmonnExport:
    """Where the checkpoint's parts lie: all in its directory, or, as `small`'s, the trained ones alone.

    Raises InputError where the others are not there.
    """
    from ...export.families.salmonn import SalmonnExport
    from ...export.small import SmallExport, small_options

    root, nowhere = task.checkpoint, task.work / "none"
    assert root is not None
    if not (root / "vicuna").exists():
        return small_options(SmallExport(trained=root, out=nowhere), no_progress)
    q = spec.qformer
    return SalmonnExport(
        whisper=task.whisper or root / "whisper",
        beats=root / "beats.pt",
        vicuna=root / "vicuna",
        salmonn=root / "salmonn.pth",
        out=nowhere,
        qformer_heads=q.n_heads,
        qformer_layers=q.n_layers,
        second_per_window=q.second_per_window,
        second_stride=q.second_stride,
        longest_seconds=spec.whisper.seconds,
    )


def _random(manifest: Manifest, n_layers: int | None, threads: int) -> _Torch:
    """The same shape, weights by transformers' and torch's own rules."""
    from ...export.encoders.beats import AudioEncoder, Beats
    from ...export.encoders.qformer import ReferenceQFormer
    from ...export.encoders.whisper import SpeechEncoder
    from .whisper import random_encoder

    spec = salmonn_of(manifest)
    norm = torch_with(threads).nn.LayerNorm
    whisper = SpeechEncoder(random_encoder(spec.whisper, "sdpa", threads), norm(spec.whisper.d_model)).eval()
    beats = AudioEncoder(Beats(spec.beats), norm(spec.beats.d_model)).eval()
    return _Torch(
        whisper, beats, ReferenceQFormer(spec.qformer).eval(), _llama(manifest, n_layers or spec.llm.n_layers)
    )


def _llama(manifest: Manifest, n_layers: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    spec = manifest.spec.llm
    sizes: dict[str, Any] = {
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.d_ffn,
        "num_hidden_layers": n_layers,
        "num_attention_heads": spec.n_heads,
        "num_key_value_heads": spec.n_kv_heads,
        "max_position_embeddings": spec.max_positions,
        "rms_norm_eps": spec.rms_norm_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": False,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes)).eval()


def _ids(task: Task, manifest: Manifest) -> tuple[list[int], list[int]]:
    """Ids before and after the audio, by the bundle's own tokenizer."""
    from ...runtime.llm.llama import Model
    from ...runtime.llm.prompts import Prompts

    model = Model(_bundle(task) / manifest.llm.file, n_gpu_layers=0)
    before, after = Prompts(model, manifest).around(_PROMPT)
    model.close()
    return list(before), list(after)


def _bundle(task: Task) -> Path:
    if task.bundle is None:
        raise InputError("a bundle is needed: give --bundle DIR")
    return task.bundle


def contestants(task: Task) -> dict[str, Contestant]:
    """In the order of running."""
    n_layers = read_manifest(_bundle(task)).spec.llm.n_layers
    few = () if task.checkpoint or n_layers <= max(FEW_LAYERS) else FEW_LAYERS
    found = {f"torch fp32, {n} layers": Contestant(open_torch(n)) for n in few}
    return {OURS: Contestant(open_ours), **(found or {"torch fp32": Contestant(open_torch(None))})}
