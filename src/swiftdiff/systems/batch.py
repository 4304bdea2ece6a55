"""Owns the requests that are denoised as one, which is most often one: their rows, and who is still in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL.Image import Image

from swiftdiff.errors import RequestError
from swiftdiff.pipeline.lane import LaneFuture
from swiftdiff.request import ImageRequest
from swiftdiff.systems.base import OnStep
from swiftdiff.systems.incoming import Incoming
from swiftdiff.telemetry.stages import StageTimer

#: Pictures, or a way to wait for them.
Decoded = list[Image] | Callable[[], list[Image]]


class Batch:
    """Requests on their way through the model together. Used by the thread that serves.

    A request that fails or is ended by its `OnStep` is out; its rows are computed on, for other shapes would
    need other graphs, and what comes of them is dropped.

    Args:
        members: The requests and their claims on adapters.
        on_steps: Called before every step, one for each; None where nobody attends.
        timer: Of the stages, which all of them share.

    Attributes:
        members: As they were given.
        timer: As it was given.
        left: Why a request is out, by its number.
    """

    def __init__(
        self, members: Sequence[Incoming], on_steps: Sequence[OnStep | None], timer: StageTimer
    ) -> None:
        self.members = tuple(members)
        self.timer = timer
        self.left: dict[int, Exception] = {}
        self._on_steps = tuple(on_steps)
        self._ids = frozenset(member.request.request_id for member in members)
        self._given_up: set[str] = set()

    @property
    def is_attended(self) -> bool:
        """Tell whether anybody is called before steps."""
        return any(on_step is not None for on_step in self._on_steps)

    @property
    def requests(self) -> list[ImageRequest]:
        """What its members ask for."""
        return [member.request for member in self.members]

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._ids

    def rows(self, latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return each request's own rows, [pictures, channels, height, width]."""
        return torch.split(latents, [request.num_images for request in self.requests])

    def show(
        self, step: int, num_steps: int, latents: torch.Tensor, draw: Callable[[torch.Tensor], list[Image]]
    ) -> None:
        """Call what attends each request that is in, with a way to draw its own rows.

        Raises:
            Exception: What ended the last one.
        """
        for index, (on_step, rows) in enumerate(zip(self._on_steps, self.rows(latents), strict=True)):
            if on_step is None or index in self.left:
                continue
            try:
                on_step(step, num_steps, partial(draw, rows))
            except Exception as error:
                self.left[index] = error
                if len(self.left) == len(self.members):
                    raise

    def check_finite(self, latents: torch.Tensor) -> None:
        """Put those out whose denoised latents are no numbers."""
        for index, (request, rows) in enumerate(zip(self.requests, self.rows(latents), strict=True)):
            if index not in self.left and not torch.isfinite(rows).all():
                self.left[index] = _no_picture(request)

    def decode(
        self,
        latents: torch.Tensor,
        begin: Callable[[torch.Tensor], LaneFuture[list[Image]]],
        *,
        wait: bool,
    ) -> dict[int, tuple[Decoded, dict[str, float]]]:
        """Return the pictures of those that are in, by number, and seconds by stage.

        Args:
            latents: Of all.
            begin: Begins to decode some.
            wait: Wait for all; otherwise there are ways to wait, each of which notes how long it was.
        """
        began = self.timer.now()
        # Each as alone: all at once could take more memory than any one of them may.
        begun = {i: begin(rows) for i, rows in enumerate(self.rows(latents)) if i not in self.left}
        if not wait:
            return {i: _to_come(future, self.timer, began) for i, future in begun.items()}
        decoded = {i: future.result() for i, future in begun.items()}
        self.timer.add("vae_decode", self.timer.now() - began)
        return {i: (pictures, dict(self.timer.seconds)) for i, pictures in decoded.items()}

    def give_up(self, request_id: str) -> None:
        """Note that nobody waits for a request; once that is so for all, nor do they for adapters.

        From any thread.
        """
        if request_id not in self._ids:
            return
        self._given_up.add(request_id)
        if len(self._given_up) < len(self._ids):
            return
        for member in self.members:
            for network in member.controlnets:
                network.abandon()
            for lora, _ in member.loras:
                lora.abandon()

    def release(self) -> None:
        """Give its adapters back."""
        for member in self.members:
            member.release()


def _to_come(
    future: LaneFuture[list[Image]], timer: StageTimer, began_s: float
) -> tuple[Decoded, dict[str, float]]:
    stages = dict(timer.seconds)

    def wait() -> list[Image]:
        pictures = future.result()
        stages["vae_decode"] = timer.now() - began_s
        return pictures

    return wait, stages


def _no_picture(request: ImageRequest) -> RequestError:
    return RequestError(
        f"request {request.request_id}: denoising ended in NaN or infinity, so there is no picture; "
        "look at its adapters, their scales and guidance_scale, or use dtype float32"
    )
