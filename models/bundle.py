"""The bundle: a directory that can be copied to a device, and its manifest.

    manifest.json                                   this module's Manifest
    whisper.onnx  beats.onnx  qformer.onnx          SALMONN's encoders [+ .data beside them]
    fastconformer.onnx  featurizer.npz              SALM's, and its front end's own tables
    llm.gguf                                        language model, LoRA merged or not
    lora.gguf                                       optional adapter, its scale chosen at run time
    imatrix.gguf                                    what llm.gguf was quantized by, for another export: never opened
    aligner_encoder.onnx  aligner_decoder.onnx  aligner.gguf    optional: a small Whisper that times words

`manifest.schema.json` beside this file says the same for other tools; a test keeps the two equal.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

from .aligner import AlignerSpec
from .audio import SAMPLE_RATE
from .dataclass_json import DecodeError, decode, encode
from .encoders import beats, fastconformer, whisper
from .errors import BundleError
from .families.registry import FAMILIES, FamilySpec
from .git_lfs import refuse_pointer
from .graph_io import GraphInfo, Profile
from .manifest_versions import current
from .precision import PrecisionName
from .prompt import AUDIO, KEYWORDS, PROMPT, SYSTEM, WORDS, PromptInfo

MANIFEST = "manifest.json"
LLM_FILE, ADAPTER_FILE, IMATRIX_FILE = "llm.gguf", "lora.gguf", "imatrix.gguf"
SELF_CHECK_VALUES = 64  # values kept per stage, evenly spread over its output


@dataclass(frozen=True)
class LlmInfo:
    """The language model's files. `merged`: the LoRA is inside llm.gguf at lora_scale; `none`: only in the adapter."""

    file: str
    lora: Literal["merged", "none"]
    lora_scale: float
    adapter: str | None
    chats: bool
    """Without its LoRA it answers questions that have nothing to do with sound."""


@dataclass(frozen=True)
class GenerationInfo:
    """What is used where the user says nothing."""

    max_new_tokens: int
    beams: int
    min_avg_logprob: float | None
    """An answer below it was not understood: it is marked, and an assistant does not act on it. None: there is none."""

    def is_sure(self, avg_logprob: float | None) -> bool:
        """Whether such an answer counts as understood; one whose probability is not known does."""
        least = self.min_avg_logprob
        return least is None or avg_logprob is None or avg_logprob >= least


@dataclass(frozen=True)
class QuantizationInfo:
    """Precision of each half; float_layers: what int8 left in float, or int4 at 8 bits, by graph, as it hurt there."""

    encoders: PrecisionName
    llm: str
    float_layers: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class SourceFile:
    """One file the bundle was made from."""

    role: str
    name: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Provenance:
    """Where the bundle came from: enough to make it again."""

    auricle: str
    packages: dict[str, str]
    options: dict[str, str]
    base_fingerprint: dict[str, str]
    sources: tuple[SourceFile, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StageError:
    """How far one stage's graph is from the torch reference on one clip."""

    stage: str
    clip: str
    max_abs: float
    relative_rms: float
    tolerance: float  # on relative_rms


@dataclass(frozen=True)
class ParityReport:
    """The exporter's own comparison; token_agreement: share of greedy next tokens equal to the reference's."""

    stages: tuple[StageError, ...]
    token_agreement: float
    n_tokens: int


@dataclass(frozen=True)
class ExpectedStage:
    """A stage's output on the self-check clip: shape, root mean square, values evenly spread over the flat output."""

    stage: str
    shape: tuple[int, ...]
    rms: float
    values: tuple[float, ...]
    tolerance: float  # on the root mean square of the differences, relative to rms


@dataclass(frozen=True)
class SelfCheck:
    """What `auricle verify --run` repeats on the user's machine, on models.audio.synthetic_clip(seed, seconds)."""

    seed: int
    seconds: float
    stages: tuple[ExpectedStage, ...]
    prompt: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle, path relative to it, with forward slashes."""

    path: str
    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a runtime must know before it opens a file of the bundle."""

    schema_version: int
    family: Literal["salmonn", "salm"]
    name: str
    created: str  # ISO 8601, UTC
    synthetic: bool  # random weights, for measuring speed only
    spec: FamilySpec
    graphs: dict[str, GraphInfo]
    llm: LlmInfo
    prompt: PromptInfo
    generation: GenerationInfo
    quantization: QuantizationInfo
    licences: tuple[str, ...]
    provenance: Provenance
    parity: ParityReport | None
    self_check: SelfCheck | None
    files: tuple[FileEntry, ...]
    aligner: AlignerSpec | None = None
    """What times words, in a bundle that has it."""


def axis_profiles(longest_s: float = 30.0) -> dict[str, Profile]:
    """(least, usual, most) length of each dynamic axis of the graphs' inputs, for clips of 1, 10 and longest_s seconds.

    What TensorRT is told. Whisper's usual length is its longest: it hears padded clips, unless asked for short ones.
    """
    seconds = (1.0, min(10.0, longest_s), longest_s)
    frames = [beats.n_frames(int(s * SAMPLE_RATE)) for s in seconds]
    tokens = [beats.BEATS_ITER3_PLUS.n_tokens(n) for n in frames]
    positions = [int(s * whisper.FRAME_RATE) for s in (1.0, longest_s, longest_s)]
    features = [fastconformer.n_frames(int(s * SAMPLE_RATE)) for s in seconds]
    return {
        fastconformer.FRAMES_AXIS: (2, features[1], features[2] + 1),  # of 20 ms, and with a tail that joined
        "mel_frames": (2 * positions[0], 2 * positions[1], 2 * positions[2]),
        "n_positions": (positions[0], positions[1], positions[2]),
        "n_frames": (frames[0], frames[1], frames[2]),
        "n_tokens": (tokens[0], tokens[1], tokens[2]),
    }


def sha256_of(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hex digest, read in 1 MiB pieces; progress is told each piece's size in bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
            if progress:
                progress(len(piece))
    return digest.hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle, checked against the schema. Raises BundleError."""
    path = directory / MANIFEST
    try:
        with readable(path):
            if not path.is_file():
                raise BundleError(
                    f"{directory} is not an Auricle bundle: it has no {MANIFEST}; make one with auricle-export"
                )
            refuse_pointer(path, BundleError)
            document = json.loads(path.read_text(encoding="utf-8"))
    except BundleError:
        raise
    except ValueError as error:
        raise BundleError(f"{path} cannot be read as JSON ({error}): copy the bundle again") from None
    except RecursionError:
        raise BundleError(f"{path} lies too deep in itself to be a manifest: copy the bundle again") from None
    document = current(document, path)
    try:
        manifest = decode(Manifest, document)
    except DecodeError as error:
        raise BundleError(f"{path} does not follow the schema: {error}; export the bundle again") from None
    _check_consistency(manifest, path)
    return manifest


def _check_consistency(manifest: Manifest, path: Path) -> None:
    if wrong := _impossible(manifest):
        raise BundleError(f"{path}: {wrong} is not possible; export the bundle again")
    if not isinstance(manifest.spec, FAMILIES[manifest.family]):
        raise BundleError(f"{path} has another family's spec than {manifest.family}'s; export the bundle again")
    wanted = manifest.spec.graphs
    if manifest.graphs != wanted:
        names = sorted(n for n in wanted.keys() | manifest.graphs.keys() if wanted.get(n) != manifest.graphs.get(n))
        raise BundleError(
            f"{path}: the interface of {', '.join(names)} does not follow from the spec; export the bundle again"
        )
    listed = {entry.path for entry in manifest.files}
    for name in named_files(manifest):
        if name not in listed:
            raise BundleError(f"{path} names {name} but does not list its size and sha256; export the bundle again")


def _impossible(manifest: Manifest) -> str | None:
    """The first size that is not above 0, or templates without their blanks."""
    spec = cast(dict[str, Any], encode(manifest.spec))
    parts = {name: cast(dict[str, Any], part) for name, part in spec.items() if isinstance(part, dict)}
    for part, sizes in parts.items():
        for name, value in sizes.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < float("inf"):
                return f"{part}.{name} = {value}"
    least = manifest.generation.min_avg_logprob
    if least is not None and not is_mean_logprob(least):
        return f"generation.min_avg_logprob = {least}"
    aligner = manifest.aligner and manifest.aligner.impossible()
    return manifest.spec.impossible() or aligner or _impossible_prompt(manifest.prompt)


def is_mean_logprob(value: float) -> bool:
    """Whether a mean of log-probabilities can be that."""
    return -math.inf < value <= 0


def _impossible_prompt(prompt: PromptInfo) -> str | None:
    blanks = {"turn": (KEYWORDS, PROMPT), "text_turn": (PROMPT,), "system": (SYSTEM,), "keywords": (WORDS,)}
    for name, needed in blanks.items():
        template: str = getattr(prompt, name)
        if any(template.count(blank) != 1 for blank in needed):
            return f"the prompt's {name} {template!r}"
    before, _, after = prompt.turn.partition(PROMPT if prompt.audio_tag else AUDIO)
    if prompt.audio_tag is None and (prompt.turn.count(AUDIO) != 1 or PROMPT not in after or KEYWORDS not in before):
        return f"the prompt's turn {prompt.turn!r}"
    if not prompt.tasks or not set(prompt.transcriptions) <= prompt.tasks.keys() or prompt.audio_tag == "":
        return "a prompt without tasks or audio"
    return None


def named_files(manifest: Manifest) -> tuple[str, ...]:
    """The files the runtime opens by name."""
    adapter = (manifest.llm.adapter,) if manifest.llm.adapter else ()
    graphs = (graph.file for graph in manifest.graphs.values())
    aligner = manifest.aligner.files if manifest.aligner else ()
    return (*graphs, *manifest.spec.data_files, manifest.llm.file, *adapter, *aligner)


def check_files(directory: Path, manifest: Manifest) -> None:
    """Every listed file is inside the bundle, there, and of its size. Raises BundleError for the first that is not."""
    for entry in manifest.files:
        path = inside(directory, entry.path)
        with readable(path):
            if not path.is_file():
                raise BundleError(f"{directory} lacks {entry.path}: copy the bundle again")
            size = path.stat().st_size
            path.open("rb").close()
        if size != entry.size:
            refuse_pointer(path, BundleError)
            raise BundleError(
                f"{entry.path} in {directory} has {size} bytes instead of {entry.size}: copy the bundle again"
            )


def check_hashes(directory: Path, manifest: Manifest, progress: Callable[[int], None] | None = None) -> None:
    """Every listed file has its sha256. Raises BundleError for the first that has not."""
    check_files(directory, manifest)
    for entry in manifest.files:
        with readable(directory / entry.path):
            digest = sha256_of(directory / entry.path, progress)
        if digest != entry.sha256:
            raise BundleError(f"{entry.path} in {directory} was altered (sha256 differs): copy the bundle again")


@contextmanager
def readable(path: Path) -> Generator[None]:
    """A file of a bundle that the system does not let us read becomes a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}): check its permissions and its disk") from None


def inside(root: Path, relative: str) -> Path:
    """`relative` below `root`. Raises BundleError when its own words lead out of it.

    A link may: whoever put it there chose what it leads to, as a hub's cache does, and its bytes are checked as others.
    """
    pure = PurePosixPath(relative)
    path = root / relative
    if pure.is_absolute() or ".." in pure.parts or "\\" in relative:
        raise BundleError(f"the bundle names {relative!r}, which leads out of its directory: do not use this bundle")
    return path


def file_entry(directory: Path, name: str, progress: Callable[[int], None] | None = None) -> FileEntry:
    """Size and sha256 of one file; progress is told bytes read."""
    path = directory / name
    return FileEntry(name, path.stat().st_size, sha256_of(path, progress))


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes manifest.json."""
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


SHIPPED = ("demo", "demo-salm")
"""Small bundles that are installed with Auricle: SALMONN's family, SALM's family."""


def shipped_bundle(name: str = SHIPPED[0]) -> Path:
    """Where one of them lies."""
    return Path(str(resources.files("auricle.models") / name))
