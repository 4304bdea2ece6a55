from __future__ import annotations

import json

import pytest

from swiftdiff.engine.clock import FakeClock
from swiftdiff.telemetry.environment import describe_environment
from swiftdiff.telemetry.memory import peak_device_bytes, peak_host_bytes
from swiftdiff.telemetry.stages import StageTimer
from swiftdiff.telemetry.timeline import Timeline


def test_a_stage_entered_twice_counts_both_times_and_waits_for_the_device() -> None:
    clock = FakeClock()
    timer = StageTimer(lambda: clock.sleep(0.5), Timeline(clock.now))  # work that is still queued
    for _ in range(2):
        with timer.stage("denoise"):
            clock.sleep(1.0)
    assert timer.seconds == pytest.approx({"denoise": 3.0})


def test_a_stage_that_raises_is_timed_too() -> None:
    clock = FakeClock()
    timer = StageTimer(timeline=Timeline(clock.now))

    def load() -> None:
        with timer.stage("lora_load"):
            clock.sleep(2.0)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        load()
    assert timer.seconds == {"lora_load": 2.0}


def test_the_environment_names_machine_and_versions_as_json() -> None:
    environment = json.loads(json.dumps(describe_environment(["swiftdiff", "replay"])))
    assert environment["command"] == ["swiftdiff", "replay"]
    assert environment["cpu"]
    assert environment["packages"]["torch"]
    assert environment["memory_bytes"] > 1e8


def test_peak_memory_is_plausible() -> None:
    assert 1e7 < peak_host_bytes() < 1e12
    assert peak_device_bytes("cpu") is None
