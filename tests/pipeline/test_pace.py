"""Checks how far the serving thread runs ahead of a device."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from swiftdiff.pipeline.pace import Pace


@dataclass
class Device:
    """Is at the last step that it was waited for."""

    queued: int = 0
    done: int = 0
    ahead: list[int] = field(default_factory=list)

    def mark(self) -> Moment:
        self.queued += 1
        return Moment(self, self.queued)


@dataclass
class Moment:
    device: Device
    step: int

    def synchronize(self) -> None:
        self.device.done = max(self.device.done, self.step)


def test_one_step_is_queued_while_the_one_before_is_computed() -> None:
    device = Device()
    pace = Pace(device.mark)
    for _ in range(6):
        pace.end_step()
        device.ahead.append(device.queued - device.done)
    assert device.ahead == [1, 1, 1, 1, 1, 1]
    assert device.done == 5


def test_a_cpu_needs_none() -> None:
    assert Pace.on(torch.device("cpu")) is None
