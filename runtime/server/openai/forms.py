"""Forms: a multipart request -> its fields by name and its file on this machine's disk, both within limits."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from ..errors import ApiError, invalid, missing
from ..service import Service, service_of

MAX_FIELDS = 200
MAX_FIELD_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024


class Upload:
    """A client's file, on disk for as long as somebody holds this."""

    def __init__(self, service: Service) -> None:
        handle, self.path = tempfile.mkstemp(dir=service.uploads)
        os.close(handle)
        self.close = weakref.finalize(self, _remove, self.path)
        """Twice is fine."""


class FormFields:
    """The text fields of a request. `name[]` and `name` are one field; an empty value is as good as none."""

    def __init__(self, fields: Mapping[str, Sequence[str]]) -> None:
        self._fields = fields

    def text(self, name: str) -> str | None:
        """The last value of a field."""
        return (self.texts(name) or [None])[-1]

    def texts(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for value in self._fields.get(name, ()) if value.strip()]

    def flag(self, name: str) -> bool:
        """true or false; absent is false. Raises ApiError."""
        value = (self.text(name) or "false").lower()
        if value not in ("true", "false", "1", "0"):
            raise invalid(f"{name} is true or false, not '{value}'", name)
        return value in ("true", "1")

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number within bounds. Raises ApiError."""
        text = self.text(name)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise invalid(f"{name} must be a number from {low:g} to {high:g}, not '{text}'", name)
        return value

    def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
        """One of several words. Raises ApiError."""
        value = self.text(name) or default
        if value not in allowed:
            raise invalid(f"{name} must be one of {', '.join(allowed)}, not '{value}'", name)
        return value


async def read_form(request: Request) -> tuple[FormFields, Upload]:
    """A request's fields and its `file`. Raises ApiError."""
    service = service_of(request)
    fields: dict[str, list[str]] = {}
    upload: Upload | None = None
    try:
        async with request.form(max_files=1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    fields.setdefault(name.removesuffix("[]"), []).append(value)
                elif name == "file":
                    upload = await _saved(service, value)
    except HTTPException as error:  # of Starlette, for what is no multipart message or has too many parts
        raise invalid(error.detail) from None
    if upload is None:
        raise missing("file")
    return FormFields(fields), upload


async def _saved(service: Service, file: UploadFile) -> Upload:
    limit = service.options.max_upload_bytes
    if file.size is None or file.size > limit:
        raise ApiError(
            413, f"The file is larger than {limit / 1024 / 1024:g} MB, which is the most here.", None, "file"
        )
    upload = Upload(service)
    await asyncio.to_thread(_copy, file.file, upload.path)
    return upload


def _copy(source: BinaryIO, path: str) -> None:
    with open(path, "wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):  # the folder goes when the service is closed
        os.unlink(path)
