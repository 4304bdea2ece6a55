"""Owns a small picture of each LoRA for the page: drawn by the served model at first need, then kept."""

from __future__ import annotations

import asyncio
import base64
import io
import secrets

from fastapi import FastAPI
from PIL import Image
from starlette.responses import Response

from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.server.conversation import Mailbox
from swiftdiff.server.errors import HttpError, deadline_passed
from swiftdiff.server.job import Failed, Finished, Job
from swiftdiff.server.service import Server

MAX_KEPT = 1000
SIDE = 128
NUM_STEPS = 12
TIMEOUT_S = 60.0
SHAPES_PROMPT = "a large red circle above a small blue square on a sand background"
OTHER_PROMPT = "a lighthouse on a cliff above the sea"


def thumbnail_path(lora_id: str) -> str:
    """Return where a LoRA's thumbnail is, relative to the server's root."""
    return f"v1/adapters/loras/{lora_id}/thumbnail"


def add_thumbnails(app: FastAPI, server: Server) -> None:
    """Add the route to an application. It serves the page and is no part of the documented API."""
    thumbnails = Thumbnails(server)

    @app.get("/" + thumbnail_path("{lora_id}"), include_in_schema=False)
    async def thumbnail(lora_id: str) -> Response:
        picture = await thumbnails.get(lora_id)
        return Response(picture, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})


class Thumbnails:
    """Draws thumbnails one after another, only while no request waits, and keeps them. For the event loop.

    Args:
        server: Draws them; they are in its log and metrics like any request.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._drawn: dict[str, bytes] = {}
        self._one_at_a_time = asyncio.Lock()

    async def get(self, lora_id: str) -> bytes:
        """Return a PNG file.

        Raises:
            HttpError: There is no such LoRA, it cannot be drawn, or the server has better things to do.
        """
        if lora_id not in self._drawn:
            listing = await asyncio.to_thread(self._server.catalog.listing)
            if lora_id not in listing.loras:
                raise HttpError(404, "there is no such LoRA here", "adapter_not_found")
            async with self._one_at_a_time:
                if lora_id not in self._drawn:
                    if len(self._drawn) >= MAX_KEPT:
                        del self._drawn[next(iter(self._drawn))]
                    self._drawn[lora_id] = _shrink(await self._draw(lora_id))
        return self._drawn[lora_id]

    async def _draw(self, lora_id: str) -> bytes:
        server = self._server
        server.check_ready()
        if len(server.room):
            raise HttpError(503, "other requests wait", "server_busy", headers={"Retry-After": "5"})
        mailbox, now_s = Mailbox(), server.clock.now()
        job = Job(self._request(lora_id), now_s, now_s + TIMEOUT_S, mailbox.put)
        server.accept(job)
        try:
            event = await asyncio.wait_for(mailbox.get(), TIMEOUT_S)
        except TimeoutError:
            raise deadline_passed(TIMEOUT_S * 1000) from None
        finally:
            server.delivery.end_unserved(job, deadline_passed(TIMEOUT_S * 1000))  # if it has not ended
            server.room.leave(job)
            server.forget(job)
        if isinstance(event, Failed):
            raise event.error
        assert isinstance(event, Finished)
        return base64.b64decode(event.pictures[0])

    def _request(self, lora_id: str) -> ImageRequest:
        server = self._server
        return ImageRequest(
            request_id=f"thumbnail-{secrets.token_hex(8)}",
            timestamp=0.0,
            prompt=SHAPES_PROMPT if server.translator.model_id == "shapes" else OTHER_PROMPT,
            num_inference_steps=NUM_STEPS,
            guidance_scale=server.config.defaults.guidance_scale,
            seed=7,
            loras=(LoraUse(id=lora_id),),
        )


def _shrink(picture: bytes) -> bytes:
    image = Image.open(io.BytesIO(picture))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()
