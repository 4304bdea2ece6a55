"""The route ``POST /v1/images/generations``: a body in, pictures out, as JSON, as events or as a PNG file."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from swiftdiff.errors import StorageError
from swiftdiff.server.body import read_json_body
from swiftdiff.server.conversation import Conversation, Mailbox
from swiftdiff.server.delivery import unix_time
from swiftdiff.server.errors import HttpError
from swiftdiff.server.guard import refusal
from swiftdiff.server.job import Event, Failed, Finished, Job, Partial
from swiftdiff.server.schema import CompletedEvent, ImagesResponse, PartialImageEvent, PictureData
from swiftdiff.server.service import Server, new_request_id
from swiftdiff.server.translation import Asked

_LEFT = Response(status_code=499)  # nobody reads it


def add_generations(app: FastAPI, server: Server) -> None:
    """Add the route to an application."""

    @app.post(
        "/v1/images/generations",
        summary="Make pictures",
        operation_id="generate_images",
        response_class=Response,
        tags=["images"],
    )
    async def generate(http: Request) -> Response:
        request_id = new_request_id()
        arrived_s = server.clock.now()
        try:
            conversation, asked = await _accept(http, server, request_id, arrived_s)
        except ClientDisconnect:
            return _LEFT
        except HttpError as error:
            with contextlib.suppress(StorageError):
                await asyncio.wrap_future(server.delivery.refuse(request_id, error))
            return refusal(error, request_id)
        return await _answer(conversation, asked)


async def _accept(
    http: Request, server: Server, request_id: str, arrived_s: float
) -> tuple[Conversation, Asked]:
    """Read a request and let it wait.

    Raises:
        HttpError: It is refused.
        ClientDisconnect: The client left before all of it was here.
    """
    server.check_ready()
    if len(server.room) >= server.config.queue_size:
        server.refuse_full()  # before a body is read that finds no place anyway
    body = await read_json_body(http, server.config.limits)
    asked = await asyncio.to_thread(server.translator.read, body, request_id, arrived_s)
    mailbox = Mailbox()
    job = Job(
        asked.request,
        arrived_s,
        server.deadline_of(asked.request, arrived_s),
        mailbox.put,
        engine=asked.engine,
        switches=asked.switches,
        num_partials=asked.num_partials,
        files=asked.files,
    )
    try:
        server.accept(job)
    except HttpError:
        job.discard_files()
        raise
    return Conversation(http, job, mailbox, server.room, server.delivery, server.clock, server.forget), asked


async def _answer(conversation: Conversation, asked: Asked) -> Response:
    """Wait for the first event, whose kind decides the response's; from then on a stream is on its own."""
    handed_on = False
    request_id = conversation.job.request.request_id
    try:
        event = await conversation.next_event()
        if event is None:
            return _LEFT
        if isinstance(event, Failed):
            return refusal(event.error, request_id)
        if asked.stream:
            handed_on = True
            return _Events(conversation, event)
        assert isinstance(event, Finished)
        return _response(event, conversation.http.headers.get("accept", ""))
    finally:
        if not handed_on:
            conversation.close()


def _response(event: Finished, accept: str) -> Response:
    headers = {"X-Request-Id": event.how.request_id}
    if accept.split(",", maxsplit=1)[0].strip() == "image/png" and len(event.pictures) == 1:
        headers["X-Seed"] = str(event.how.seed)
        return Response(base64.b64decode(event.pictures[0]), headers=headers, media_type="image/png")
    body = ImagesResponse(
        created=unix_time(),
        data=tuple(PictureData(b64_json=picture) for picture in event.pictures),
        size=event.size,
        swiftdiff=event.how,
    )
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")


class _Events(StreamingResponse):
    """A job's events from one on; its conversation is closed also if the client left before the first."""

    def __init__(self, conversation: Conversation, event: Event) -> None:
        self._conversation = conversation
        request_id = conversation.job.request.request_id
        super().__init__(
            _stream(conversation, event),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Request-Id": request_id},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._conversation.close()


async def _stream(conversation: Conversation, event: Event | None) -> AsyncIterator[str]:
    while event is not None:
        yield _server_sent(event)
        if not isinstance(event, Partial):
            return
        event = await conversation.next_event()


def _server_sent(event: Event) -> str:
    """Return an event as the lines of a stream."""
    if isinstance(event, Failed):
        return f"event: error\ndata: {event.error.body().model_dump_json()}\n\n"
    message: PartialImageEvent | CompletedEvent
    if isinstance(event, Partial):
        message = PartialImageEvent(
            b64_json=event.picture,
            partial_image_index=event.index,
            created_at=unix_time(),
            size=event.size,
            swiftdiff={"step": event.step, "num_steps": event.num_steps},
        )
    else:
        message = CompletedEvent(
            b64_json=event.pictures[0], created_at=unix_time(), size=event.size, swiftdiff=event.how
        )
    return f"event: {message.type}\ndata: {message.model_dump_json()}\n\n"
