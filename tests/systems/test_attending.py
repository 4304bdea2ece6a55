"""Who attends steps can look at unfinished pictures and end the request, with nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from serving import LORAS, are_equal, engine, largest_difference, serve, stock, weights_of, with_adapters

from swiftdiff.systems.base import OnStep, Preview
from swiftdiff.systems.switches import RequestSwitches


class LeaveError(Exception):
    """Nobody waits any more."""


def leave_at(wanted: int) -> OnStep:
    def on_step(step: int, num_steps: int, preview: Preview) -> None:
        if step == wanted:
            raise LeaveError

    return on_step


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_request_that_ends_before_any_step_leaves_the_weights_bit_identical(
    tiny_family: Path, controls: Path, step: int
) -> None:
    with engine(tiny_family, latent_parallelism=True, graph_replay=True, prefetch=True) as system:
        pristine = weights_of(system)
        asked = with_adapters(1, LORAS, num_inference_steps=4)
        expected = serve(system, asked, controls)
        system.attend(leave_at(step))
        with pytest.raises(LeaveError):
            serve(system, asked, controls)
        after = weights_of(system)
        assert all(torch.equal(pristine[key], after[key]) for key in pristine)
        system.attend(lambda step, num_steps, preview: None)
        assert are_equal(serve(system, asked, controls), expected)


def test_stock_can_be_left_between_steps_and_serves_on_afterwards(tiny_family: Path, controls: Path) -> None:
    with stock(tiny_family) as system:
        asked = with_adapters(1, num_inference_steps=4)
        expected = serve(system, asked, controls)
        system.attend(leave_at(2))
        with pytest.raises(LeaveError):
            serve(system, with_adapters(1, LORAS, num_inference_steps=4), controls)
        system.attend(lambda step, num_steps, preview: None)
        # Stock fuses LoRAs and takes them off again with some rounding, also after whole requests.
        assert largest_difference(serve(system, asked, controls), expected) <= 1


def test_looking_at_unfinished_pictures_shows_every_step_and_changes_nothing(
    tiny_family: Path, controls: Path
) -> None:
    seen: list[tuple[int, int, np.ndarray]] = []

    def look(step: int, num_steps: int, preview: Preview) -> None:
        seen.append((step, num_steps, np.asarray(preview()[0])))

    for open_system, first in ((engine, 0), (stock, 1)):
        seen.clear()
        with open_system(tiny_family) as system:
            asked = with_adapters(1, num_inference_steps=4)
            expected = serve(system, asked, controls)
            system.attend(look)
            assert are_equal(serve(system, asked, controls), expected)
        assert [(step, total) for step, total, _ in seen] == [(step, 4) for step in range(first, 4)]
        assert all(picture.shape == expected[0].shape for _, _, picture in seen)
        assert not np.array_equal(seen[0][2], seen[-1][2])


def test_a_requests_own_switches_change_no_picture_and_do_not_stay(tiny_family: Path, controls: Path) -> None:
    names = ("latent_parallelism", "controlnet_offload", "reuse_invariants")
    with engine(tiny_family, **dict.fromkeys(names, True)) as system:
        asked = with_adapters(2, LORAS, num_inference_steps=3)
        expected = serve(system, asked, controls)
        for name in names:
            system.switch(RequestSwitches.model_validate({name: False}))
            assert largest_difference(serve(system, asked, controls), expected) <= 1, name
        system.switch(None)
        assert are_equal(serve(system, asked, controls), expected)
