from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from swiftdiff.report.summary import summarize
from swiftdiff.request import RequestRecord


def record(at_s: float, wait_s: float, stages: dict[str, float], **fields: Any) -> RequestRecord:
    service_s = sum(seconds for name, seconds in stages.items() if name != "restore")
    values: dict[str, Any] = {
        "request_id": f"r{at_s}",
        "status": "ok",
        "scheduled_at_s": at_s,
        "started_at_s": at_s + wait_s,
        "finished_at_s": at_s + wait_s + service_s,
        "queue_wait_s": wait_s,
        "latency_s": wait_s + service_s,
        "stages": stages,
        "num_images": 1,
        "num_inference_steps": 20,
        "device_seconds": sum(stages.values()),
    }
    return RequestRecord(**(values | fields))


def test_latency_statistics_are_numpys() -> None:
    waits = np.random.default_rng(0).gamma(2.0, size=200)
    summary = summarize([record(float(i), w, {"denoise": 1.0}) for i, w in enumerate(waits)], (50, 75))
    flat = summary.to_flat_dict()
    ms = (waits + 1.0) * 1000
    assert flat["mean_e2el_ms"] == pytest.approx(ms.mean())
    assert flat["std_e2el_ms"] == pytest.approx(ms.std(ddof=1))
    assert flat["median_e2el_ms"] == flat["p50_e2el_ms"] == pytest.approx(np.median(ms))
    for p in (75, 90, 95, 99):
        assert flat[f"p{p}_e2el_ms"] == pytest.approx(np.percentile(ms, p))


def test_the_means_of_queue_and_stages_add_up_to_the_mean_latency() -> None:
    records = [
        record(0, 0.1, {"denoise": 1.0, "restore": 0.3}),
        record(1, 0.2, {"lora_load": 0.5, "denoise": 2.0, "restore": 0.1}),
        record(2, 0.3, {"denoise": 1.5, "vae_decode": 0.1}),
    ]
    summary = summarize(records)
    assert summary.latency is not None
    parts = sum(each.mean for name, each in summary.stages.items() if name != "restore")
    assert parts == pytest.approx(summary.latency.mean)
    assert list(summary.stages) == ["queue", "lora_load", "denoise", "vae_decode", "restore"]


def test_rates_count_from_the_first_arrival_to_the_last_finish() -> None:
    records = [record(2.0, 0, {"denoise": 1.0}, num_images=3), record(5.0, 1.0, {"denoise": 2.0})]
    summary = summarize(records)
    assert summary.duration == pytest.approx(6.0)
    assert summary.request_throughput == pytest.approx(2 / 6)
    assert summary.images_per_s == pytest.approx(4 / 6)
    assert summary.device_seconds_per_image == pytest.approx(3.0 / 4)


def test_warmups_are_in_no_number() -> None:
    measured = [record(10, 0, {"denoise": 1.0})]
    warmed = [record(0, 0, {"denoise": 99.0}, warmup=True, bytes_loaded=5), *measured]
    assert summarize(warmed) == summarize(measured)


def test_captured_graphs_are_summed_over_requests_and_unknown_for_systems_that_do_not_tell() -> None:
    records = [record(float(i), 0, {"denoise": 1.0}, graphs_captured=count) for i, count in enumerate((4, 0))]
    warmed = [record(0, 0, {"denoise": 1.0}, warmup=True, graphs_captured=9), *records]
    assert summarize(warmed).graphs_captured == 4
    failed = record(9, 0, {"other": 1.0}, status="failed", error="no")
    assert summarize([*warmed, failed]).to_flat_dict()["graphs_captured"] == 4
    assert summarize([failed]).graphs_captured is None


def test_a_failure_costs_device_time_and_misses_its_slo_but_has_no_latency() -> None:
    records = [
        record(0, 0, {"denoise": 1.0}, slo_ms=2000.0, slo_met=True),
        record(
            1,
            0,
            {"other": 3.0},
            status="failed",
            error="no",
            error_kind="AdapterError",
            slo_ms=1.0,
            slo_met=False,
        ),
    ]
    summary = summarize(records)
    assert (summary.completed, summary.failed) == (1, 1)
    assert summary.latency is not None
    assert summary.latency.mean == pytest.approx(1000)
    assert summary.slo_attainment_rate == pytest.approx(0.5)
    assert summary.request_goodput == pytest.approx(1 / 4)
    assert summary.device_seconds_per_image == pytest.approx(4.0)
    assert [(f.kind, f.error) for f in summary.failures] == [("AdapterError", "no")]


def test_without_slos_there_is_no_goodput() -> None:
    summary = summarize([record(0, 0, {"denoise": 1.0})])
    assert summary.request_goodput is None
    assert summary.slo_attainment_rate is None


@pytest.mark.parametrize("status", [[], ["failed"], ["failed", "failed"]])
def test_a_run_in_which_nothing_was_served_still_has_a_summary(status: list[str]) -> None:
    records = [record(float(i), 0, {"other": 0.0}, status="failed", error="x") for i, _ in enumerate(status)]
    summary = summarize(records)
    assert (summary.completed, summary.failed) == (0, len(status))
    assert summary.latency is None
    assert summary.to_flat_dict()["request_throughput"] == 0
