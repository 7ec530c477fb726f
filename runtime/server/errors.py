"""Errors as OpenAI's clients read them: an exception -> a status and a JSON body.

400  InputError: invalid_value, unsupported_value, missing_required_parameter      401  invalid_api_key
403  another host or origin     404  model_not_found     413  too large             429  rate_limit_exceeded
500  RunError                   503  starting, stopping
"""

from __future__ import annotations

import logging
import traceback
from typing import Any

from starlette.responses import JSONResponse

from ...models.errors import AudioError, AuricleError, BundleError, InputError
from ..scheduler import Cancelled

LOG = logging.getLogger("auricle.server")
RETRY_AFTER_SECONDS = {429: 1, 503: 5}


class ApiError(Exception):
    """What a client is told instead of an answer."""

    def __init__(self, status: int, message: str, code: str | None = None, param: str | None = None) -> None:
        """param: the field that is wrong."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    @property
    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """When to come again, where that helps."""
        seconds = RETRY_AFTER_SECONDS.get(self.status)
        return {} if seconds is None else {"retry-after": str(seconds)}

    def response(self) -> JSONResponse:
        """To be sent."""
        return JSONResponse(self.body, self.status, self.headers)


def invalid(message: str, param: str | None = None) -> ApiError:
    """A value that makes no sense."""
    return ApiError(400, message, "invalid_value", param)


def unsupported(message: str, param: str | None = None) -> ApiError:
    """A value that makes sense, and that this bundle or server cannot follow."""
    return ApiError(400, message, "unsupported_value", param)


def missing(param: str) -> ApiError:
    """A field that every request must have."""
    return ApiError(400, f"Missing required parameter: '{param}'.", "missing_required_parameter", param)


def api_error(error: Exception) -> ApiError:
    """What a client is told of an exception; of one that is no error of ours, nothing but that it happened."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, Cancelled):
        return ApiError(503, str(error))
    if isinstance(error, AudioError):
        return invalid(str(error), "file")
    if isinstance(error, InputError) and not isinstance(error, BundleError):
        return invalid(str(error))
    if isinstance(error, AuricleError):
        return ApiError(500, str(error))
    return ApiError(500, "The server had an error while processing your request.")


def log_failure(error: Exception, request_id: str = "") -> None:
    """Where it happened, if it is the server's. Not what it says: that may quote what somebody spoke or asked."""
    if api_error(error).status < 500 or isinstance(error, Cancelled):
        return
    frames = traceback.extract_tb(error.__traceback__)
    where = ", ".join(f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in frames[-3:])
    LOG.error("request %s: %s in %s", request_id, type(error).__name__, where)
