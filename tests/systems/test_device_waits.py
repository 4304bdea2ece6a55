"""Checks how often the thread that serves waits for the device, which idles until it has its next work."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import draw_controls, engine, with_adapters


@pytest.mark.parametrize("loras", [(), ("neon",)])
def test_steps_are_queued_without_a_wait_for_the_device(
    loras: tuple[str, ...], tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    controls, waits = draw_controls(tmp_path), []
    with engine(tiny_family / "base", reuse_invariants=True) as system:
        monkeypatch.setattr(system._model, "synchronize", lambda: waits.append(1))
        for num_steps in (2, 5):
            system.serve(with_adapters(1, loras, num_inference_steps=num_steps), controls)
            system.finish()
            waits.append(0)
    few, many = "".join(map(str, waits)).split("0")[:2]
    assert few == many != ""
