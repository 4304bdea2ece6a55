"""How long stages took, also those that are under way."""

from __future__ import annotations

import pytest

from swiftdiff.engine.clock import FakeClock
from swiftdiff.telemetry.stages import StageTimer
from swiftdiff.telemetry.timeline import Timeline


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timer(clock: FakeClock) -> StageTimer:
    return StageTimer(timeline=Timeline(clock.now, enabled=False))


def test_a_stage_under_way_counts_until_now_less_the_stages_in_it(
    timer: StageTimer, clock: FakeClock
) -> None:
    with timer.stage("text_encode"):
        clock.sleep(1)
    with timer.under_way("denoise", timer.now()):
        clock.sleep(4)
        timer.add("lora_patch", 1.5)  # of these four seconds
        assert timer.so_far() == {"text_encode": 1, "lora_patch": 1.5, "denoise": 2.5}
        with timer.stage("preview"):
            clock.sleep(2)
            assert timer.so_far() == {"text_encode": 1, "lora_patch": 1.5, "preview": 2, "denoise": 2.5}
        clock.sleep(1)
        assert timer.so_far() == {"text_encode": 1, "lora_patch": 1.5, "preview": 2, "denoise": 3.5}
    timer.add("denoise", 3.5)
    assert (
        timer.so_far() == timer.seconds == {"text_encode": 1, "lora_patch": 1.5, "preview": 2, "denoise": 3.5}
    )


def test_a_stage_that_failed_is_not_under_way_any_more(timer: StageTimer, clock: FakeClock) -> None:
    with pytest.raises(ZeroDivisionError), timer.stage("denoise"):
        clock.sleep(2)
        raise ZeroDivisionError
    clock.sleep(5)
    assert timer.so_far() == {"denoise": 2}
