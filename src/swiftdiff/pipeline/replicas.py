"""Owns one network's copies by device: lanes of one device share a copy, each GPU has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import torch

from swiftdiff.errors import ConfigError
from swiftdiff.pipeline.lane import Lane

Network = TypeVar("Network")


class Replicas(Generic[Network]):
    """A network on each device that has lanes for it. Whoever patches weights patches all of them alike.

    Args:
        name: How errors call the network.
        by_device: Its copies; devices as `Lane.device` has them.
    """

    def __init__(self, name: str, by_device: Mapping[torch.device, Network]) -> None:
        self.name = name
        self._by_device = dict(by_device)

    def __contains__(self, lane: Lane) -> bool:
        return lane.device in self._by_device

    def on(self, lane: Lane) -> Network:
        """Return the copy that a lane uses.

        Raises:
            ConfigError: There is none on its device.
        """
        if lane not in self:
            devices = ", ".join(str(device) for device in self._by_device)
            raise ConfigError(f"{self.name} is on {devices}, but lane {lane.name} needs it on {lane.device}")
        return self._by_device[lane.device]
