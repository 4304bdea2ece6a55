"""The routes of worlds: begin one, watch it, steer it, end it; and the page that does so."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI
from pydantic import ValidationError
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
from swiftdiff.server.world_offer import propose
from swiftdiff.server.world_schema import Steered, SteerRequest, WorldOffer, WorldRequest, WorldState
from swiftdiff.server.world_service import WorldService, refuse
from swiftdiff.server.world_viewer import MEDIA_TYPE, FrameStream
from swiftdiff.validation import StrictModel, describe

WORLDS, ONE = "/v1/worlds", "/v1/worlds/{world}"
PAGE = Path(__file__).resolve().parent / "world_page"

Model = TypeVar("Model", bound=StrictModel)
Handler = Callable[[Request], Awaitable[Response]]


def add_worlds(app: FastAPI, service: WorldService, config: ServerConfig) -> None:
    """Add the routes and the page, at ``/world/``, to an application.

    Args:
        app: The application; it guards them and answers what they refuse.
        service: The worlds.
        config: The server, for its limits.
    """
    routes = WorldRoutes(service, config)
    for method, path, handler, body, answer, refusals in (
        ("GET", WORLDS, routes.offer, None, WorldOffer, ()),
        ("POST", WORLDS, routes.begin, WorldRequest, WorldState, (400, 408, 413, 415, 429, 503)),
        ("GET", ONE, routes.state, None, WorldState, (404,)),
        ("DELETE", ONE, routes.end, None, None, (404,)),
        ("POST", ONE + "/steer", routes.steer, SteerRequest, Steered, (400, 404, 408, 413, 415)),
        ("GET", ONE + "/frames", routes.frames, None, None, (404, 429)),
    ):
        app.add_api_route(
            path,
            _counted(handler, service),
            methods=[method],
            status_code={routes.begin: 201, routes.end: 204}.get(handler, 200),
            response_class=Response,
            operation_id=f"{handler.__name__}_world",
            summary=(handler.__doc__ or "").strip(),
            tags=["worlds"],
            responses=_answers(handler is routes.frames, answer, refusals),
            openapi_extra=_asked(path, body),
        )
    # The API's own script and the looks of the other page are this one's too.
    files = StaticFiles(directory=PAGE, packages=[("swiftdiff.server", "page")], html=True)
    app.router.routes.append(Route("/world", lambda http: RedirectResponse("world/")))
    app.router.routes.append(Mount("/world", files, name="world"))


class WorldRoutes:
    """What the routes do.

    Args:
        service: The worlds.
        config: The server, for its limits.
    """

    def __init__(self, service: WorldService, config: ServerConfig) -> None:
        self._service = service
        self._limits = config.limits

    async def offer(self, http: Request) -> Response:
        """Tell which worlds can be begun."""
        engine = self._service.engine
        example, actions = propose(engine.model)
        return _json(
            WorldOffer(
                model=engine.model.name,
                example=example,
                actions=actions,
                fps=self._service.fps,
                frames_per_block=engine.model.settings.frames_per_block,
                worlds=len(engine.sessions),
                max_worlds=engine.capacity,
                prompt_chars=self._limits.prompt_chars,
            )
        )

    async def begin(self, http: Request) -> Response:
        """Begin a world"""
        asked = await self._read(http, WorldRequest)
        self._check_length("prompt", asked.prompt)
        seed = asked.seed if asked.seed is not None else secrets.randbelow(MAX_SEED)
        world = await self._service.open(asked.prompt, seed)
        return _json(_state(world, seed), 201)

    async def state(self, http: Request) -> Response:
        """Describe a world"""
        return _json(_state(self._world(http)))

    async def end(self, http: Request) -> Response:
        """End a world"""
        world = self._world(http)
        world.close()
        await world.ended.wait()
        return Response(status_code=204)

    async def steer(self, http: Request) -> Response:
        """Ask something of a world"""
        world = self._world(http)
        asked = await self._read(http, SteerRequest)
        self._check_length("text", asked.text)
        try:
            from_block = await world.steer(asked.text, asked.blocks)
        except Exception as error:
            raise refuse(error, "text") from error
        return _json(Steered(text=asked.text, from_block=from_block))

    async def frames(self, http: Request) -> Response:
        """Watch a world: pictures, each in place of the last, until it ends"""
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
            where = error.errors(include_url=False)[0]["loc"]
            param = str(where[0]) if where else None
            raise HttpError(400, describe(error, model), "invalid_value", param=param) from error

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


def _state(world: World, seed: int | None = None) -> WorldState:
    return WorldState(
        id=world.id,
        frames=f"v1/worlds/{world.id}/frames",
        seed=seed,
        blocks=world.num_blocks,
        frames_shown=world.num_frames,
        frames_missed=world.missed,
        viewers=world.num_viewers,
    )


def _json(model: StrictModel, status: int = 200) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")


def _answers(
    is_stream: bool, answer: type[StrictModel] | None, refusals: tuple[int, ...]
) -> dict[int | str, dict[str, Any]]:
    """Return what a route may answer, for the OpenAPI document."""
    answers: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": "It is refused"} for status in refusals
    }
    if is_stream:
        answers[200] = {"description": "Until the world ends", "content": {MEDIA_TYPE: {}}}
    elif answer is not None:
        answers[201 if 429 in refusals else 200] = {"model": answer}
    return answers


def _asked(path: str, body: type[StrictModel] | None) -> dict[str, Any]:
    """Return what a route is asked, for the OpenAPI document."""
    asked: dict[str, Any] = {}
    if "{world}" in path:
        name = {"name": "world", "in": "path", "required": True, "schema": {"type": "string"}}
        asked["parameters"] = [name]
    if body is not None:
        content = {"application/json": {"schema": body.model_json_schema()}}
        asked["requestBody"] = {"required": True, "content": content}
    return asked
