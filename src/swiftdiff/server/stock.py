"""Serves single requests with stock diffusers beside the server's system, to compare with."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from swiftdiff.config import ServingConfig
from swiftdiff.request import ImageRequest
from swiftdiff.systems import build_system
from swiftdiff.systems.base import OnStep, Served, ServingSystem


class StockBeside:
    """Stock diffusers with the same model, loaded when first asked for. Used by the thread that serves.

    Each request has a thread of its own: stock computes with all of the machine's threads, and a team of them
    that stayed would slow the engine's lanes (OpenMP counts teams, idle ones too).

    Args:
        config: The server's system; its model, device and adapters are taken.
        num_threads: Intra-op threads; None is the config's, or torch's number when this is made.
    """

    def __init__(self, config: ServingConfig, num_threads: int | None = None) -> None:
        self._num_threads = num_threads or config.threads or torch.get_num_threads()
        self._config = config.model_copy(
            update={"name": "stock", "engine": "diffusers", "threads": self._num_threads}
        )
        self._system: ServingSystem | None = None

    def serve(self, request: ImageRequest, images_root: Path, on_step: OnStep) -> Served:
        """Make a request's pictures and take its adapters off again.

        Raises:
            SwiftdiffError: The request cannot be served, or the model cannot be loaded.
        """
        result: list[Served | BaseException] = []

        def work() -> None:
            try:
                result.append(self._serve(request, images_root, on_step))
            except BaseException as error:
                result.append(error)

        callers = torch.get_num_threads()
        thread = threading.Thread(target=work, name="stock")
        thread.start()
        thread.join()
        torch.set_num_threads(callers)  # torch gives the last number that was set to threads to come
        if isinstance(result[0], BaseException):
            raise result[0]
        return result[0]

    def stages_so_far(self, request_id: str) -> dict[str, float]:
        """Return what a request took until now; see `ServingSystem.stages_so_far`."""
        return {} if self._system is None else self._system.stages_so_far(request_id)

    def close(self) -> None:
        """Give the model back."""
        if self._system is not None:
            self._system.close()
            self._system = None

    def _serve(self, request: ImageRequest, images_root: Path, on_step: OnStep) -> Served:
        torch.set_num_threads(self._num_threads)
        if self._system is None:
            system = build_system(self._config)
            system.warm_up()
            self._system = system
        self._system.attend(on_step)
        try:
            return self._system.serve(request, images_root)
        finally:
            self._system.finish()
