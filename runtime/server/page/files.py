"""The page's files -> responses that let it load nothing from elsewhere and run nothing but its own modules.

/  ─► index.html, with ?overlay overlay.html      /page/NAME ─► its styles and modules      /page/tasks ─► the bundle
"""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..errors import ApiError
from ..languages import transcribed_languages
from ..service import service_of

KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; media-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Trusted types: what somebody said can become text in the page, never markup or script."""
HEADERS = {
    "content-security-policy": POLICY,
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
FOLDER = "/page/"
FILES = {
    file.name: file.read_bytes()
    for file in resources.files(__package__ or "").joinpath("static").iterdir()
    if file.name[file.name.rfind(".") :] in KINDS
}
PATHS = frozenset({"/", *(f"{FOLDER}{name}" for name in FILES)})
"""What needs no key: the page itself, which asks for it."""


async def index(request: Request) -> Response:
    """The page, or the viewer that is laid over a picture."""
    return _file("overlay.html" if "overlay" in request.query_params else "index.html")


async def file(request: Request) -> Response:
    """One of the page's files."""
    return _file(request.path_params["name"])


async def tasks(request: Request) -> Response:
    """What the bundle can be asked, and how much of it."""
    service = service_of(request)
    info = service.engine.prompt
    try:
        languages = sorted(transcribed_languages(info))
    except ApiError:
        languages = []
    told = {
        "model": service.model.name,
        "tasks": [{"name": name, "prompt": prompt} for name, prompt in info.tasks.items()],
        "languages": languages,
        "max_keywords": info.max_keywords,
        "max_upload_bytes": service.options.max_upload_bytes,
        "window_s": service.engine.spec.seconds,
    }
    return JSONResponse(told, headers={"cache-control": "no-cache"})


def _file(name: str) -> Response:
    if (content := FILES.get(name)) is None:
        raise ApiError(404, f"The page has no file {name!r}.")
    kind = KINDS[name[name.rfind(".") :]]
    return Response(content, media_type=kind, headers=HEADERS)
