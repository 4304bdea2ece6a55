"""Owns an engine's lanes, and gives each request the ones that suit it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swiftdiff.pipeline.lane import Lane
from swiftdiff.pipeline.placement import Placement


class Workplace:
    """The lanes of one engine.

    A CPU has a further lane with all threads, for requests that there is nothing to split of: on a lane of
    its share of the threads they would leave the rest idle.

    Args:
        names: Of the lanes, such as ``cpu:0``; None is two lanes that share a CPU's threads, or two streams
            of one GPU, of which the second computes ControlNets.
        device: The model's, for ``names`` of None.
        num_threads: Of all CPU lanes together.
        latent_parallelism: Give the two halves of guidance a lane each. On one GPU they would only share it,
            so there the lanes must be named for that.
        controlnet_offload: Let ControlNets compute on other lanes than their UNet.

    Raises:
        ConfigError: A lane's name is not a device of this machine.
    """

    def __init__(
        self,
        names: Sequence[str] | None,
        device: torch.device,
        num_threads: int,
        *,
        latent_parallelism: bool,
        controlnet_offload: bool,
    ) -> None:
        is_cpu = device.type == "cpu"
        if names is None:
            several = [f"cpu:{i}" for i in range(min(2, num_threads))] if is_cpu else [str(device)] * 2
            self._can_split = is_cpu and len(several) > 1
        else:
            several = list(names)
            self._can_split = len(several) > 1
        self._latent_parallelism = latent_parallelism
        self._controlnet_offload = controlnet_offload
        on_cpu = sum(name.startswith("cpu") for name in several)
        share = max(1, num_threads // max(1, on_cpu))
        self._lanes = tuple(Lane(name, share if name.startswith("cpu") else None) for name in several)
        widens = self._lanes[0].device.type == "cpu" and share < num_threads
        self._wide = Lane("cpu", num_threads, "all threads") if widens else None

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """Every device once, the one that requests begin on first."""
        return tuple(dict.fromkeys(lane.device for lane in self._lanes))

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All lanes."""
        return self._lanes if self._wide is None else (*self._lanes, self._wide)

    @property
    def widest(self) -> Lane:
        """The lane for work that is not split: with all threads of a CPU, the first lane else."""
        return self._wide or self._lanes[0]

    def place(
        self,
        *,
        guided: bool,
        num_controlnets: int,
        latent_parallelism: bool | None = None,
        controlnet_offload: bool | None = None,
    ) -> Placement:
        """Return the lanes for a request.

        Args:
            guided: Whether it has two halves of guidance.
            num_controlnets: How many ControlNets it has.
            latent_parallelism: In place of the engine's.
            controlnet_offload: In place of the engine's.
        """
        asked = self._latent_parallelism if latent_parallelism is None else latent_parallelism
        splits = asked and self._can_split
        asked = self._controlnet_offload if controlnet_offload is None else controlnet_offload
        offloads = asked and len(self._lanes) > 1
        first, *others = self._lanes
        if guided and splits:
            second, *free = others
            if not offloads:
                return Placement((first, second))
            return Placement((first, second), tuple(free) or (first, second))
        if offloads and num_controlnets:
            return Placement((first,), (*others, first))
        return Placement((self.widest,))

    def close(self) -> None:
        """End the lanes' threads."""
        for lane in self.lanes:
            lane.close()
