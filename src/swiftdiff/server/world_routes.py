"""The routes of worlds: begin one, watch it, steer it, end it; and the page that does so."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fastapi import FastAPI
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from swiftdiff.request import MAX_SEED
from swiftdiff.server.body import read_json_body
from swiftdiff.server.config import ServerConfig
from swiftdiff.server.errors import HttpError
from swiftdiff.server.schema import ErrorResponse
from swiftdiff.server.world_channel import World
from swiftdiff.server.world_schema import Steered, SteerRequest, WorldOffer, WorldRequest, WorldState
from swiftdiff.server.world_service import WorldService, refuse
from swiftdiff.server.world_viewer import MEDIA_TYPE, FrameStream
from swiftdiff.validation import StrictModel, describe, path_of
from swiftdiff.world.proposals import propose

WORLDS, ONE = "/v1/worlds", "/v1/worlds/{world}"
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
MAX_LISTED = 200  # prompts that are told of
PAGE = Path(__file__).resolve().parent / "world_page"

Model = TypeVar("Model", bound=StrictModel)
Handler = Callable[[Request], Awaitable[Response]]


def add_worlds(
    app: FastAPI, service: WorldService, config: ServerConfig, *, has_images: bool = False
) -> None:
    """Add the routes and the page, at ``/world/``, to an application.

    Args:
        app: The application; it guards them and answers what they refuse.
        service: The worlds.
        config: The server, for its limits.
        has_images: Whether the application draws pictures too.
    """
    routes = _routes(WorldRoutes(service, config, has_images))
    for route in routes:
        app.add_api_route(
            route.path,
            _counted(route.handler, service),
            methods=[route.method],
            status_code=route.status,
            response_class=Response,
            operation_id=f"{route.name}_world",
            summary=route.summary,
            tags=["worlds"],
            responses=_answers(route),
            openapi_extra=_asked(route),
        )
    for path in (WORLDS, ONE):  # the framework would name the first of their methods alone
        allowed = {route.method for route in routes if route.path == path}
        app.add_api_route(
            path, _refuse_method(allowed), methods=sorted(METHODS - allowed), include_in_schema=False
        )
    # The API's own script and the looks of the other page are this one's too.
    files = StaticFiles(directory=PAGE, packages=[("swiftdiff.server", "page")], html=True)
    app.router.routes.append(Route("/world", lambda http: RedirectResponse("world/")))
    app.router.routes.append(Mount("/world", files, name="world"))


class _Route(NamedTuple):
    """A route: how it is called, what it takes and what it may answer."""

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    status: int = 200
    body: type[StrictModel] | None = None
    answer: type[StrictModel] | None = None
    refusals: tuple[int, ...] = ()


def _routes(to: WorldRoutes) -> tuple[_Route, ...]:
    body = (400, 408, 413, 415)  # what may be wrong with any
    return (
        _Route("offer", "GET", WORLDS, to.offer, "Tell which worlds can be begun", answer=WorldOffer),
        _Route(
            "begin", "POST", WORLDS, to.begin, "Begin a world", 201, WorldRequest, WorldState,
            (*body, 429, 503),
        ),
        _Route("describe", "GET", ONE, to.describe, "Describe a world", answer=WorldState, refusals=(404,)),
        _Route("end", "DELETE", ONE, to.end, "End a world", 204, refusals=(404,)),
        _Route(
            "steer", "POST", f"{ONE}/steer", to.steer, "Ask something of a world", 200, SteerRequest, Steered,
            (*body, 404, 410),
        ),
        _Route("watch", "GET", f"{ONE}/frames", to.watch, "Watch a world until it ends", refusals=(404, 429)),
    )  # fmt: skip


class WorldRoutes:
    """What the routes do.

    Args:
        service: The worlds.
        config: The server, for its limits.
        has_images: Whether the server draws pictures too.
    """

    def __init__(self, service: WorldService, config: ServerConfig, has_images: bool) -> None:
        self._service = service
        self._has_images = has_images
        self._limits = config.limits

    async def offer(self, http: Request) -> Response:
        """Tell which worlds can be begun."""
        engine = self._service.engine
        proposal = propose(engine.model)
        return _json(
            WorldOffer(
                model=Path(engine.model.name).resolve().name,  # a client need not know where it lies
                example=proposal.example,
                prompts=proposal.prompts[:MAX_LISTED],
                actions=proposal.actions,
                fps=self._service.fps,
                frames_per_block=engine.model.settings.frames_per_block,
                worlds=len(engine.sessions),
                max_worlds=engine.capacity,
                prompt_chars=self._limits.prompt_chars,
                images=self._has_images,
            )
        )

    async def begin(self, http: Request) -> Response:
        """Begin a world."""
        asked = await self._read(http, WorldRequest)
        self._check_length("prompt", asked.prompt)
        seed = asked.seed if asked.seed is not None else secrets.randbelow(MAX_SEED)
        world = await self._service.open(asked.prompt, seed)
        return _json(_state(world), 201)

    async def describe(self, http: Request) -> Response:
        """Describe a world."""
        return _json(_state(self._world(http)))

    async def end(self, http: Request) -> Response:
        """End a world."""
        world = self._world(http)
        world.close()
        await world.ended.wait()
        return Response(status_code=204)

    async def steer(self, http: Request) -> Response:
        """Ask something of a world."""
        world = self._world(http)
        asked = await self._read(http, SteerRequest)
        self._check_length("text", asked.text)
        try:
            from_block = await world.steer(asked.text, asked.blocks)
        except Exception as error:
            raise refuse(error, "text") from error
        return _json(Steered(text=asked.text, from_block=from_block))

    async def watch(self, http: Request) -> Response:
        """Watch a world: pictures, each in place of the last, until it ends."""
        world = self._world(http)
        viewer = self._service.watch(world)
        return FrameStream(viewer, lambda: world.leave(viewer))

    def _world(self, http: Request) -> World:
        return self._service.find(http.path_params["world"])

    async def _read(self, http: Request, model: type[Model]) -> Model:
        body = await read_json_body(http, self._limits)
        try:
            return model.model_validate_json(body)
        except ValidationError as error:
            param = path_of(error.errors(include_url=False)[0]["loc"]) or None
            message = describe(error, model, whole="the body")
            raise HttpError(400, message, "invalid_value", param=param) from error

    def _check_length(self, field: str, text: str) -> None:
        if len(text) > self._limits.prompt_chars:
            message = f"{field} has {len(text)} characters, but at most {self._limits.prompt_chars} are read"
            raise HttpError(400, message, "invalid_value", param=field)


def _counted(handler: Handler, service: WorldService) -> Handler:
    async def answer(http: Request) -> Response:
        try:
            return await handler(http)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except HttpError as error:
            service.metrics.refused(error.code)
            raise

    return answer


def _refuse_method(allowed: set[str]) -> Handler:
    async def answer(http: Request) -> Response:
        raise HTTPException(405, headers={"Allow": ", ".join(sorted(allowed))})

    return answer


def _state(world: World) -> WorldState:
    return WorldState(
        id=world.id,
        frames=f"v1/worlds/{world.id}/frames",
        seed=world.seed,
        blocks=world.num_blocks,
        frames_shown=world.num_frames,
        frames_missed=world.missed,
        viewers=world.num_viewers,
    )


def _json(model: StrictModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")


def _answers(route: _Route) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer, for the OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": "It is refused"} for status in route.refusals
    }
    if route.name == "watch":
        answers[200] = {"description": "Until the world ends", "content": {MEDIA_TYPE: {}}}
    elif route.answer is not None:
        answers[route.status] = {"model": route.answer}
    return answers


def _asked(route: _Route) -> dict[str, Any]:
    """Return what a route is asked, for the OpenAPI document."""
    asked: dict[str, Any] = {}
    if "{world}" in route.path:
        name = {"name": "world", "in": "path", "required": True, "schema": {"type": "string"}}
        asked["parameters"] = [name]
    if route.body is not None:
        content = {"application/json": {"schema": route.body.model_json_schema()}}
        asked["requestBody"] = {"required": True, "content": content}
    return asked
