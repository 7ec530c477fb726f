"""The application: a service -> an ASGI application that answers every protocol, behind the guard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from ...models.errors import InputError
from ..scheduler import Cancelled
from .errors import ApiError, api_error
from .guard import Guard
from .openai.chat_completions import complete_chat
from .openai.models import list_models, show_model
from .openai.realtime.session import realtime
from .openai.transcriptions import transcribe, translate
from .page import files
from .page.broadcasts import Broadcasts, view
from .page.live import live
from .service import Service, service_of


def create_app(service: Service, broadcasts: Broadcasts) -> ASGIApp:
    """The routes of all protocols. The service stays the caller's, to be closed."""
    routes = [
        Route("/health", health),
        Route("/metrics", metrics),
        Route("/v1/models", list_models),
        Route("/v1/models/{name:path}", show_model),
        Route("/v1/audio/transcriptions", transcribe, name="transcriptions", methods=["POST"]),
        Route("/v1/audio/translations", translate, name="translations", methods=["POST"]),
        Route("/v1/chat/completions", complete_chat, name="chat", methods=["POST"]),
        WebSocketRoute("/v1/realtime", realtime),
        Route("/", files.index),
        Route(f"{files.FOLDER}tasks", files.tasks),
        Route(f"{files.FOLDER}{{name}}", files.file),
        WebSocketRoute("/live", live),
        WebSocketRoute("/live/view", view),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _failed,
            InputError: _failed,
            Cancelled: _failed,
            HTTPException: _no_route,
            Exception: _failed,  # and the guard logs it
        },
    )
    app.state.service = service
    app.state.broadcasts = broadcasts
    return Guard(app, service, {route.path: route.name for route in routes}, files.PATHS | {"/health"})


async def health(request: Request) -> Response:
    """200 while new work is taken, 503 while the server stops."""
    service = service_of(request)
    stops = service.stopping.is_set()
    return JSONResponse({"status": "stopping" if stops else "ok", "model": service.model.name}, 503 if stops else 200)


async def metrics(request: Request) -> Response:
    """For Prometheus."""
    return Response(service_of(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _failed(_: Request, error: Exception) -> Response:
    return api_error(error).response()


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    what = "is not allowed" if status == 405 else "is not known"
    return ApiError(status, f"{request.method} {request.url.path} {what} here.").response()
