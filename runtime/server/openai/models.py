"""GET /v1/models: the bundle by its name; names of the hosted service's models stand for it too."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import ApiError
from ..service import Service, service_of

HOSTED = ("whisper-", "gpt-")
"""What names begin with that many programs cannot change: they are taken as the bundle's."""


async def list_models(request: Request) -> Response:
    """All that are served: one."""
    return JSONResponse({"object": "list", "data": [_card(service_of(request))]})


async def show_model(request: Request) -> Response:
    """The bundle, by its own name."""
    service = service_of(request)
    if (name := request.path_params["name"]) != service.model.name:
        raise model_not_found(name)
    return JSONResponse(_card(service))


def check_model(service: Service, name: str) -> None:
    """Raises ApiError for a model that is not served."""
    if name != service.model.name and not name.startswith(HOSTED):
        raise model_not_found(name)


def model_not_found(name: str) -> ApiError:
    """404."""
    return ApiError(404, f"The model '{name}' does not exist", "model_not_found", "model")


def _card(service: Service) -> dict[str, Any]:
    model = service.model
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": "auricle"}
