"""Speed against quality on the page: there once a system is approximate, and as measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_folders import make_run, noisy, served

from swiftdiff.compare.report import report_runs
from swiftdiff.config import ServingConfig
from swiftdiff.report.html import ComparisonPage


def _noisy_run(folder: Path, name: str, service_s: float, *, seed: int, exactness: str) -> Path:
    requests = []
    for index, request_id in enumerate("abc"):
        record, _ = served(request_id, service_s)
        requests.append((record, [noisy(100, seed + index)]))
    config = ServingConfig(name=name, engine="swiftdiff", model="none")
    return make_run(folder / name, requests, config=config, exactness=exactness)


def _page(*runs: Path) -> ComparisonPage:
    page = report_runs(list(runs), baseline="stock").page
    assert page is not None
    return page


def test_an_approximate_system_lies_where_it_was_measured_beside_the_exact_ones(tmp_path: Path) -> None:
    stock = _noisy_run(tmp_path, "stock", 2.0, seed=0, exactness="exact")
    same = _noisy_run(tmp_path, "same", 1.0, seed=0, exactness="exact")
    skips = _noisy_run(tmp_path, "skips", 0.5, seed=9, exactness="approximate")
    ssim = _page(stock, same, skips).frontiers[0]
    assert ssim.measure == "SSIM with stock"
    assert ssim.reference is not None
    assert (ssim.reference.label, ssim.reference.seconds, ssim.reference.quality) == ("stock", 2.0, 1.0)
    exact, approximate = ssim.points
    assert (exact.label, exact.seconds, exact.quality) == ("same", 1.0, pytest.approx(1.0))
    assert (approximate.label, approximate.seconds) == ("skips", 0.5)
    assert approximate.quality < 0.9
    assert not ssim.is_ordered


def test_exact_systems_alone_have_no_such_picture(tmp_path: Path) -> None:
    stock = _noisy_run(tmp_path, "stock", 2.0, seed=0, exactness="exact")
    same = _noisy_run(tmp_path, "same", 1.0, seed=0, exactness="exact")
    assert _page(stock, same).frontiers == ()
