"""The language model alone, exported as a whole export does it: refused where it cannot be, then written."""

from __future__ import annotations

from pathlib import Path

from auricle.export.formats.imatrix_file import read_imatrix, require_match
from auricle.export.llm.export import Llm, LlmExport, LoraMode
from auricle.export.llm.gptq import Rounding
from auricle.export.llm.lora import Lora
from auricle.export.llm.quantize import DEFAULT_TABLES, TableTypes, require_weighted
from auricle.export.progress import Report, no_report


def export_llm(
    llm: Llm,
    lora: Lora,
    out: Path,
    *,
    quantization: str,
    mode: LoraMode = "merged",
    lora_scale: float | None = None,
    n_threads: int = 1,
    force: bool = False,
    progress: Report = no_report,
    imatrix: Path | None = None,
    tables: TableTypes = DEFAULT_TABLES,
    rounding: Rounding | None = None,
) -> list[Path]:
    """Writes into `out`; returns the paths. Raises as LlmExport, ExportOptions and require_match do."""
    asked = LlmExport(
        llm=llm, lora=lora, quantization=quantization, mode=mode, lora_scale=lora_scale, tables=tables, force=force
    )
    if imatrix:
        require_weighted(quantization)
        require_match(read_imatrix(imatrix), llm.spec, imatrix)
    return asked.write(out, n_threads=n_threads, progress=progress, imatrix=imatrix, rounding=rounding)
