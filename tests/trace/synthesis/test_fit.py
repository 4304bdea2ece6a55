from __future__ import annotations

import gzip
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from swiftdiff.errors import TraceError
from swiftdiff.trace import write_trace
from swiftdiff.trace.synthesis.comparison import compare, ks_distance
from swiftdiff.trace.synthesis.evaluation import make_like
from swiftdiff.trace.synthesis.fit import assumptions, fit_spec, write_load_times, write_spec
from swiftdiff.trace.synthesis.fit_gaps import fit_gaps, resolution_of
from swiftdiff.trace.synthesis.generator import content_pool, generate
from swiftdiff.trace.synthesis.observations import Observations, observe, observe_requests
from swiftdiff.trace.synthesis.spec import find_spec, load_spec, parse_spec
from swiftdiff.trace.synthesis.streams import stream

REAL = Path(__file__).parents[4] / "shared" / "data" / "gentd26"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="GenTD26's files are not here")


def made(name: str, number: int, seed: int = 3) -> Observations:
    spec = load_spec(find_spec(name))
    return observe_requests(islice(generate(spec, seed, content_pool(spec, seed, "t")), number))


def test_a_fit_to_a_made_up_trace_makes_more_like_it() -> None:
    seen = made("production", 6000)
    likeness = compare(make_like(fit_spec(seen), seen, 1), seen)
    assert likeness.per_request < 0.02
    assert likeness.hit_rate < 0.05
    assert likeness.ks < 0.1


def test_settings_and_controlnets_are_fitted_too() -> None:
    spec = fit_spec(made("bursty", 2000))
    assert spec.controlnets is not None
    assert spec.controlnets.zipf is not None
    assert set(spec.controlnets.zipf.ids or ()) == {"edges", "depth", "layout"}
    assert spec.pictures.num_inference_steps.values == (8, 20, 30)
    assert spec.pictures.num_inference_steps.weights == pytest.approx((0.2, 0.6, 0.2), abs=0.04)
    assert spec.pictures.size is not None
    assert spec.pictures.size.values == ((128, 128),)
    assert spec.pictures.slo_ms is not None


def test_the_zipf_exponent_is_found_again() -> None:
    spec = fit_spec(made("steady", 5000))
    assert spec.controlnets is not None
    assert spec.controlnets.zipf is not None
    assert spec.controlnets.zipf.exponent == pytest.approx(0.5, abs=0.15)


def test_gaps_over_days_keep_their_distribution_and_their_hours() -> None:
    generator = np.random.default_rng(0)
    hours = np.repeat(np.where(np.arange(240) % 24 < 12, 60, 6), 1)
    arrivals = np.sort(
        np.concatenate([hour * 3600 + generator.random(n) * 3600 for hour, n in enumerate(hours)])
    )
    gaps = fit_gaps(arrivals, 0.001)
    again = np.array(list(islice(gaps.times(stream(0, "t"), 0.001), len(arrivals))))
    assert ks_distance(np.diff(again), np.diff(arrivals)) < 0.06
    busy = np.mean((again + gaps.start_s) % 86400 < 43200)
    assert busy == pytest.approx(10 / 11, abs=0.06)


@pytest.mark.parametrize(("step", "found"), [(1.0, 1.0), (0.1, 0.1), (0.001, 0.001), (0.0007, 0.001)])
def test_the_clocks_step_is_seen(step: float, found: float) -> None:
    assert resolution_of(np.arange(50) * step * 3) == pytest.approx(found)


def test_a_fitted_spec_reads_back_and_says_where_it_comes_from(tmp_path: Path) -> None:
    spec = load_spec(find_spec("steady"))
    write_trace(tmp_path / "t.jsonl.gz", islice(generate(spec, 0, content_pool(spec, 0, "t")), 100))
    observed = observe(tmp_path / "t.jsonl.gz")
    fitted = fit_spec(observed)
    write_spec(tmp_path / "spec.toml", fitted, observed)
    text = (tmp_path / "spec.toml").read_text()
    assert parse_spec(text) == fitted
    assert "#   t.jsonl.gz (SHA-256 " in text
    assert max(map(len, text.splitlines())) <= 110


def test_too_little_to_fit_is_said(tmp_path: Path) -> None:
    spec = load_spec(find_spec("steady"))
    requests = list(islice(generate(spec, 0, content_pool(spec, 0, "t")), 30))
    write_trace(tmp_path / "few.jsonl", requests[:5])
    with pytest.raises(TraceError, match=r"few\.jsonl: 5 requests are too few for a fit: give it 20 or more"):
        observe(tmp_path / "few.jsonl")
    write_trace(tmp_path / "burst.jsonl", [r.model_copy(update={"timestamp": 5.0}) for r in requests])
    with pytest.raises(TraceError, match="all requests arrive at one time"):
        observe(tmp_path / "burst.jsonl")


def test_load_times_are_forty_quantiles_of_each_kind(tmp_path: Path) -> None:
    times = {"lora": np.arange(1001) / 100, "controlnet": np.full(10, 2.0)}
    write_load_times(tmp_path / "t.csv", times)
    from swiftdiff.adapters.measured_times import read_measurements

    seconds = read_measurements(tmp_path / "t.csv").seconds
    assert [len(seconds[kind]) for kind in ("lora", "controlnet")] == [40, 40]
    assert np.median(seconds["lora"]) == pytest.approx(5.0, abs=0.01)
    assert set(seconds["controlnet"]) == {2.0}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder like GenTD26's with 60 requests."""
    header = "num_images_per_prompt,num_inference_steps,lora_args\n"
    lora = "\"[{'modelVersionId': 'x%d', 'scale': 0.8}]\""
    rows = [f"1.0,30.0,{lora % (row % 3) if row % 2 else '[]'}\n" for row in range(60)]
    (tmp_path / "data_trace_processed_first_half.csv").write_text(header + "".join(rows) + ",,[]\n")
    times = [f"2024-11-15 16:{row:02d}:05,SUCCEED\n" for row in range(60)]
    (tmp_path / "lora_request_trace.csv").write_text("gmt_create,predict_status\n" + "".join(times))
    return tmp_path


def test_gentd26s_files_are_read_as_columns_of_different_requests(small: Path) -> None:
    observed = observe(small)
    assert len(observed.loras) == 60
    assert observed.arrivals_s[:2].tolist() == [57605.0, 57665.0]
    assert set(observed.lora_scales) == {0.8}
    spec = fit_spec(observed)
    assert spec.resolution_ms == 1000
    assert spec.controlnets is None
    assert "pictures" in assumptions(observed)


def test_damaged_files_of_gentd26_are_named(small: Path) -> None:
    adapters, times = small / "data_trace_processed_first_half.csv", small / "lora_request_trace.csv"
    good = times.read_text()
    times.write_text(good.replace("gmt_create", "when"))
    with pytest.raises(TraceError, match=r"lora_request_trace\.csv: has no column 'gmt_create'"):
        observe(small)
    times.write_text(good.replace("2024-11-15 16:03:05", "soon"))
    with pytest.raises(TraceError, match=r"lora_request_trace\.csv:5: gmt_create is 'soon', but must be"):
        observe(small)
    times.write_text(good.replace("16:03:05", "15:03:05"))
    with pytest.raises(TraceError, match=r"lora_request_trace\.csv:5: gmt_create is .* sort the file"):
        observe(small)
    times.write_text("")
    with pytest.raises(TraceError, match=r"lora_request_trace\.csv: cannot be read as CSV"):
        observe(small)
    times.write_text(good)
    adapters.write_text(adapters.read_text().replace("'scale'", "'size'", 1))
    with pytest.raises(TraceError, match=r"first_half\.csv:3: lora_args is"):
        observe(small)
    adapters.unlink()
    with pytest.raises(
        TraceError, match=r"must be one file data_trace_processed\*\.csv\*, but there is none"
    ):
        observe(small)


def test_a_truncated_gzip_file_is_named(small: Path) -> None:
    times = small / "lora_request_trace.csv"
    whole = gzip.compress(times.read_bytes())
    times.unlink()
    times.with_suffix(".csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TraceError, match=r"lora_request_trace\.csv\.gz: the gzip data ends unfinished"):
        observe(small)


@needs_real
def test_the_shipped_spec_is_the_fit_to_gentd26(tmp_path: Path) -> None:
    observed = observe(REAL)
    times = "production-load-times.csv"
    fitted, shipped = fit_spec(observed, times), load_spec(find_spec("production"))
    write_load_times(tmp_path / times, observed.load_times_s)
    assert (tmp_path / times).read_bytes() == find_spec("production").with_name(times).read_bytes()
    assert fitted.model_copy(update={"arrivals": shipped.arrivals}) == shipped
    # The gaps come from simulations, in which the last digit of a processor's logarithm may grow.
    ours, theirs = fitted.arrivals.gaps, shipped.arrivals.gaps
    assert ours is not None
    assert theirs is not None
    assert ours.seconds == pytest.approx(theirs.seconds)
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=0.01)
    assert ours.curve == pytest.approx(theirs.curve, abs=0.5)


@needs_real
def test_on_the_half_that_it_did_not_see_a_fit_is_no_further_off_than_the_seen_half() -> None:
    observed = observe(REAL)
    seen, judged = observed.part(0, 0.5), observed.part(0.5, 1)
    drift, likeness = compare(seen, judged), compare(make_like(fit_spec(seen), judged, 1), judged)
    assert likeness.ks <= 0.1
    assert likeness.hit_rate <= drift.hit_rate + 0.03
    assert likeness.per_request <= drift.per_request + 0.01
