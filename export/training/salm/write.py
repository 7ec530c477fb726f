"""Checkpoint of demo-salm in canary-qwen's format, written and read (docs/reference.md §7.1, §7.5, §7.8)."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import ParakeetEncoder, Qwen3ForCausalLM

from ....models.encoders import fastconformer as fc
from ....models.errors import CheckpointError
from .corpus import filter_bank, window
from .encoder import SPEC, new_encoder
from .joint import LORA_ALPHA, LORA_RANK, new_projection, with_lora
from .llm import SPECIALS, new_llm

_ENCODER, _PROJECTION, _LLM = "perception.encoder.", "perception.proj.", "llm.base_model.model."
_TO_NEMO = (
    ("subsampling.layers.", "pre_encode.conv."), ("subsampling.linear.", "pre_encode.out."),
    (".q_proj.", ".linear_q."), (".k_proj.", ".linear_k."), (".v_proj.", ".linear_v."), (".o_proj.", ".linear_out."),
    (".relative_k_proj.", ".linear_pos."), (".bias_u", ".pos_bias_u"), (".bias_v", ".pos_bias_v"),
    (".conv.norm.", ".conv.batch_norm."),
)  # fmt: skip
_PLACEHOLDER = SPECIALS[-1]


@dataclass(frozen=True)
class Model:
    """All parts of a written checkpoint, in float32."""

    encoder: ParakeetEncoder
    projection: nn.Linear
    llm: Qwen3ForCausalLM
    """With its LoRA beside its weights."""
    tokenizer: Tokenizer


def write_checkpoint(
    out: Path, encoder: ParakeetEncoder, projection: nn.Linear, llm: Qwen3ForCausalLM, tokenizer: Path
) -> None:
    """Write config.json, model.safetensors (BF16, the LoRA unmerged) and qwen3/ into `out`; `llm` has its LoRA."""
    (out / "qwen3").mkdir(parents=True, exist_ok=True)
    save_file(official_state(encoder, projection, llm), out / "model.safetensors", metadata={"format": "pt"})
    _write_json(out / "config.json", _config())
    pieces = Tokenizer.from_file(str(tokenizer))
    _write_json(out / "qwen3" / "config.json", _qwen3_config(llm, pieces))
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write_json(out / "qwen3" / "special_tokens_map.json", special)
    added = pieces.get_added_tokens_decoder()
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    _write_json(
        out / "qwen3" / "tokenizer_config.json",
        {
            "added_tokens_decoder": {str(i): {"content": token.content, **plain} for i, token in sorted(added.items())},
            "clean_up_tokenization_spaces": False,
            **special,
            "model_max_length": llm.config.max_position_embeddings,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    shutil.copyfile(tokenizer, out / "qwen3" / "tokenizer.json")


def official_state(encoder: ParakeetEncoder, projection: nn.Linear, llm: Qwen3ForCausalLM) -> dict[str, Tensor]:
    """Every tensor by NeMo's name: floats in BF16, counters as they are."""
    state = {
        "perception.preprocessor.featurizer.fb": torch.from_numpy(filter_bank())[None],
        "perception.preprocessor.featurizer.window": torch.from_numpy(window()),
    }
    state |= {_ENCODER + nemo_name(name): value for name, value in encoder.state_dict().items()}
    state |= {_PROJECTION + name: value for name, value in projection.state_dict().items()}
    state |= {_LLM + name: value for name, value in llm.state_dict().items() if "embed_tokens" not in name}
    state["embed_tokens.weight"] = llm.model.embed_tokens.weight
    return {name: (value.detach().bfloat16() if value.is_floating_point() else value).contiguous().clone()
            for name, value in state.items()}  # fmt: skip


def nemo_name(name: str) -> str:
    """NeMo's name of a tensor of transformers' encoder."""
    for ours, theirs in _TO_NEMO:
        name = name.replace(ours, theirs)
    return name


def read_checkpoint(folder: Path) -> Model:
    """What `write_checkpoint` wrote. Raises CheckpointError when it is not there or of another shape."""
    path = folder / "model.safetensors"
    if not path.exists():
        raise CheckpointError(f"{path} is missing: run --stage write first")
    found = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    encoder = new_encoder()
    projection = new_projection()
    llm = new_llm()
    with_lora(llm)
    try:
        encoder.load_state_dict({name: found[_ENCODER + nemo_name(name)] for name in encoder.state_dict()})
        projection.load_state_dict({name: found[_PROJECTION + name] for name in projection.state_dict()})
        names = [name for name in llm.state_dict() if "embed_tokens" not in name]
        state = {name: found[_LLM + name] for name in names}
        llm.load_state_dict({**state, "model.embed_tokens.weight": found["embed_tokens.weight"]})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not the second demo model's: {error}") from error
    tokenizer = Tokenizer.from_file(str(folder / "qwen3" / "tokenizer.json"))
    return Model(encoder.eval(), projection.eval(), llm.eval(), tokenizer)


def _config() -> dict[str, Any]:
    """config.json, as NeMo's SALM writes it."""
    preprocessor = {
        "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
        "window": "hann", "features": SPEC.n_mels, "n_fft": fc.N_FFT, "log": True, "frame_splicing": 1,
        "dither": 1e-05, "pad_to": 0, "pad_value": 0.0,
    }  # fmt: skip
    encoder = {
        "feat_in": SPEC.n_mels, "feat_out": -1, "n_layers": SPEC.n_layers, "d_model": SPEC.d_model, "use_bias": True,
        "subsampling": "dw_striding", "subsampling_factor": fc.SUBSAMPLING,
        "subsampling_conv_channels": SPEC.subsampling_channels, "causal_downsampling": False,
        "ff_expansion_factor": SPEC.d_ffn // SPEC.d_model, "self_attention_model": "rel_pos",
        "n_heads": SPEC.n_heads, "att_context_size": [-1, -1], "xscaling": False, "untie_biases": True,
        "pos_emb_max_len": 5000, "conv_kernel_size": SPEC.conv_kernel, "conv_norm_type": "batch_norm",
    }  # fmt: skip
    modules = "nemo.collections.speechlm2.modules.perception."
    lora = {"r": LORA_RANK, "lora_alpha": LORA_ALPHA, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj"],
            "task_type": "CAUSAL_LM"}  # fmt: skip
    return {
        "pretrained_llm": "qwen3", "pretrained_asr": "none", "audio_locator_tag": _PLACEHOLDER,
        "prompt_format": "qwen", "pretrained_weights": False, "lora": lora,
        "perception": {
            "target": f"{modules}AudioPerceptionModule", "output_dim": SPEC.d_llm, "preprocessor": preprocessor,
            "encoder": encoder,
            "modality_adapter": {"target": f"{modules}IdentityConnector", "d_model": SPEC.d_model},
        },
    }  # fmt: skip


def _qwen3_config(llm: Qwen3ForCausalLM, pieces: Tokenizer) -> dict[str, Any]:
    """qwen3/config.json in the fields of Qwen3's own; the embedding has rows to spare, as the original's."""
    config = cast(Any, llm.config)
    kept = (
        "attention_bias", "attention_dropout", "head_dim", "hidden_act", "hidden_size",
        "initializer_range", "intermediate_size", "max_position_embeddings", "num_attention_heads",
        "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "use_cache",
        "vocab_size",
    )  # fmt: skip
    pad, end = (pieces.token_to_id(special) for special in (SPECIALS[0], "<|im_end|>"))
    return {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
        **{name: getattr(config, name) for name in kept},
        "rope_theta": config.rope_parameters["rope_theta"], "rope_scaling": None,
        "bos_token_id": pad, "eos_token_id": end, "pad_token_id": pad,
        "sliding_window": None, "use_sliding_window": False,
    }  # fmt: skip


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
