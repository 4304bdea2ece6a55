from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run_folders import failed, make_run, served

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.report.run_report import write_report
from swiftdiff.request import LatentCacheRecord


def cached(request_id: str, similarity: float | None, skipped_steps: int, **fields: Any) -> Any:
    record = LatentCacheRecord(similarity=similarity, skipped_steps=skipped_steps, cached_bytes=10)
    return served(request_id, 1.0, latent_cache=record, num_inference_steps=20, **fields)


def test_a_run_with_a_cache_of_latents_says_how_often_and_how_much_it_helped(tmp_path: Path) -> None:
    records = [
        cached("first", None, 0),
        cached("near", 0.95, 10),
        cached("nearer", 0.75, 4),
        cached("far", 0.3, 0),
        cached("warm", 1.0, 10, warmup=True),
        failed("broken"),
    ]
    run = make_run(tmp_path / "run", records)
    write_report(RunFolder(run))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["latent_cache"]["hit_rate"] == 0.5
    assert summary["latent_cache"]["skipped_share"] == 14 / 80
    assert abs(summary["latent_cache"]["mean_similarity"] - 0.85) < 1e-9
    rows = (run / "tables/throughput.csv").read_text().splitlines()
    assert "latents from cache,50.0,% of requests" in rows
    assert "steps skipped for them,17.5,% of steps" in rows


def test_a_run_without_one_says_nothing_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [served("plain", 1.0)])
    write_report(RunFolder(run))
    assert "latent_cache" not in json.loads((run / "summary.json").read_text())
    assert "latents" not in (run / "report.md").read_text()


def test_a_cache_that_never_helped_has_no_similarity(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [cached("first", None, 0), cached("far", 0.2, 0)])
    write_report(RunFolder(run))
    use = json.loads((run / "summary.json").read_text())["latent_cache"]
    assert use == {"hit_rate": 0.0, "skipped_share": 0.0, "mean_similarity": None}
