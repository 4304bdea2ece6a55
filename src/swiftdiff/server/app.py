"""Assembles the HTTP application: routes, guard, documents and the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import swiftdiff
from swiftdiff.server.errors import HttpError
from swiftdiff.server.generations import add_generations
from swiftdiff.server.guard import Guard, refusal
from swiftdiff.server.openapi import complete_document
from swiftdiff.server.service import Server
from swiftdiff.server.status import add_status
from swiftdiff.server.thumbnails import add_thumbnails

if TYPE_CHECKING:
    from swiftdiff.server.world_service import WorldService

API = ("/v1/", "/health", "/ready", "/metrics", "/openapi.json", "/docs")
PAGE = Path(__file__).resolve().parent / "page"


def create_app(server: Server, worlds: WorldService | None = None) -> FastAPI:
    """Return the application of a server.

    Args:
        server: What it answers from; started and closed by the caller.
        worlds: The worlds that it shows too, if any.
    """
    app = FastAPI(
        title="swiftdiff",
        version=swiftdiff.__version__,
        summary="Text-to-image with ControlNets and LoRAs, as OpenAI's Images API",
        docs_url=None,  # it would fetch its scripts from elsewhere
        redoc_url=None,
    )
    add_generations(app, server)
    add_status(app, server, has_worlds=worlds is not None)
    add_thumbnails(app, server)
    app.add_api_route("/docs", _show_document, include_in_schema=False)
    if worlds is not None:
        from swiftdiff.server.world_routes import add_worlds

        add_worlds(app, worlds, server.config, has_images=True)
        server.metrics.include(worlds.metrics.registry)
    answer_errors(app)
    app.openapi = _document_of(app, server)  # type: ignore[method-assign]
    if (PAGE / "index.html").is_file():
        app.router.routes.append(_Page("/", StaticFiles(directory=PAGE, html=True), name="page"))
    if server.config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(server.config.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    app.add_middleware(Guard, config=server.config)
    return app


def answer_errors(app: FastAPI) -> None:
    """Let an application answer errors as OpenAI's API would."""
    app.exception_handler(HTTPException)(_answer_http_exception)
    app.exception_handler(HttpError)(_answer_http_error)


class _Page(Mount):
    """The page's files: all but the API's paths, which would hide there that only a method is wrong."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for one of them."""
        return (Match.NONE, {}) if scope["path"].startswith(API) else super().matches(scope)


def _document_of(app: FastAPI, server: Server) -> Callable[[], dict[str, Any]]:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            raw = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            app.openapi_schema = complete_document(raw, server.config)
        return app.openapi_schema

    return document


async def _show_document() -> Response:
    """Answer a page that shows the OpenAPI document, all of it from this server."""
    return FileResponse(PAGE / "reference.html", media_type="text/html")


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses (no such path or method) as all else is refused."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "http_error")
    return refusal(HttpError(error.status_code, str(error.detail), code, headers=dict(error.headers or {})))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)
    return refusal(error)
