from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_requests import request, requests_at, trace_of

from swiftdiff.errors import StorageError, SwiftdiffError, TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace import Provenance, read_provenance, read_trace, trace_sha256, write_trace
from swiftdiff.trace.transform import (
    CountSpan,
    Selection,
    TimeSpan,
    all_filled_in,
    mean_rate,
    merge_traces,
    scale_trace,
    slice_trace,
)


def arrivals_s(path: Path) -> list[float]:
    return [request.timestamp / 1000 for request in read_trace(path)]


def names(path: Path) -> list[str]:
    return [request.request_id for request in read_trace(path)]


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    return trace_of(tmp_path / "ten.jsonl", requests_at(*range(10)))


def with_image(name: str = "r0", at_s: float = 0) -> ImageRequest:
    return request(name, at_s, controlnets=["edges"])


def test_a_time_slice_holds_its_begin_and_not_its_end(ten: Path) -> None:
    out = ten.with_name("out.jsonl")
    assert slice_trace(ten, out, TimeSpan(2, 5)) == 3
    assert names(out) == ["r2", "r3", "r4"]
    assert arrivals_s(out) == [0, 1, 2]


def test_a_slice_of_requests_with_loras_counts_only_these(tmp_path: Path) -> None:
    loras = [[], ["a"], ["b"], [], ["c"], ["d"], ["e"]]
    trace = trace_of(tmp_path / "t.jsonl", [request(f"r{i}", i, loras=ids) for i, ids in enumerate(loras)])
    out = tmp_path / "out.jsonl"
    assert slice_trace(trace, out, CountSpan(1, 2), Selection(with_loras=True, every=2)) == 2
    assert names(out) == ["r4", "r6"]
    provenance = read_provenance(out)
    assert provenance is not None
    assert provenance.options == {"start": 1, "count": 2, "with_loras": True, "every": 2}


def test_a_slice_keeps_its_times_if_asked(ten: Path) -> None:
    slice_trace(ten, ten.with_name("out.jsonl"), TimeSpan(from_s=7.5), keep_times=True)
    assert arrivals_s(ten.with_name("out.jsonl")) == [8, 9]


@pytest.mark.parametrize(
    ("span", "kept"),
    [
        (CountSpan(8), ["r8", "r9"]),
        (CountSpan(0, 2), ["r0", "r1"]),
        (CountSpan(3, 1), ["r3"]),
        (CountSpan(9, 5), ["r9"]),
    ],
)
def test_a_slice_by_count_leaves_out_the_first_and_takes_the_next(
    span: CountSpan, kept: list[str], ten: Path
) -> None:
    slice_trace(ten, ten.with_name("out.jsonl"), span)
    assert names(ten.with_name("out.jsonl")) == kept


def test_slices_one_after_the_other_are_the_whole_trace(ten: Path) -> None:
    parts = [ten.with_name(f"{number}.jsonl") for number in range(3)]
    for part, span in zip(parts, (TimeSpan(0, 3), TimeSpan(3, 8), TimeSpan(8)), strict=True):
        slice_trace(ten, part, span, keep_times=True)
    assert [request for part in parts for request in read_trace(part)] == list(read_trace(ten))


def test_what_follows_a_slice_is_not_read(ten: Path) -> None:
    with ten.open("a") as file:
        file.write("nonsense\n")
    assert slice_trace(ten, ten.with_name("out.jsonl"), CountSpan(0, 5)) == 5


@pytest.mark.parametrize("span", [TimeSpan(100), CountSpan(10)])
def test_an_empty_slice_is_refused_and_writes_nothing(span: TimeSpan | CountSpan, ten: Path) -> None:
    with pytest.raises(TraceError, match=r"ten\.jsonl: no request is left by --(from|start) 10"):
        slice_trace(ten, ten.with_name("out.jsonl"), span)
    assert list(ten.parent.iterdir()) == [ten]


def test_scaling_divides_all_arrivals(ten: Path) -> None:
    out = ten.with_name("out.jsonl.gz")
    assert scale_trace(ten, out, 4) == 10
    assert arrivals_s(out) == [second / 4 for second in range(10)]
    assert gzip.decompress(out.read_bytes()).startswith(b'{"provenance"')


def test_a_trace_scaled_to_a_rate_has_that_rate(tmp_path: Path) -> None:
    source, out = trace_of(tmp_path / "t.jsonl", requests_at(5, 6, 9, 15)), tmp_path / "out.jsonl"
    assert mean_rate(source) == 0.3
    scale_trace(source, out, 2 / mean_rate(source))
    assert mean_rate(out) == pytest.approx(2)


def test_a_rate_of_requests_that_come_at_once_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="needs requests at two different times"):
        mean_rate(trace_of(tmp_path / "t.jsonl", requests_at(5, 5)))


def test_slowing_down_beyond_what_numbers_hold_is_refused(ten: Path) -> None:
    with pytest.raises(TraceError, match="request r1: its arrival at speed 1e-307 is later than numbers go"):
        scale_trace(ten, ten.with_name("out.jsonl"), 1e-307)
    assert list(ten.parent.iterdir()) == [ten]


@given(st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=8).map(sorted), min_size=2, max_size=4))
def test_a_merge_is_sorted_stable_and_complete(
    tmp_path_factory: pytest.TempPathFactory, traces: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    sources = [trace_of(folder / f"{n}.jsonl", requests_at(*moments)) for n, moments in enumerate(traces)]
    assert merge_traces(sources, folder / "out.jsonl", prefix=True) == sum(map(len, traces))
    expected = sorted((at, n, i) for n, moments in enumerate(traces) for i, at in enumerate(moments))
    assert names(folder / "out.jsonl") == [f"{n + 1}-r{i}" for _, n, i in expected]


def test_ids_that_differ_stay_as_they_are_in_a_merge(tmp_path: Path) -> None:
    a = trace_of(tmp_path / "a.jsonl", [request("x")])
    b = trace_of(tmp_path / "b.jsonl", [request("y")])
    merge_traces([a, b], tmp_path / "out.jsonl")
    assert names(tmp_path / "out.jsonl") == ["x", "y"]


def test_an_id_in_two_traces_is_refused_with_both_and_what_to_do(ten: Path) -> None:
    other = trace_of(ten.with_name("other.jsonl"), [request("r3", 100)])
    with pytest.raises(TraceError, match=r"'r3' is in both .*ten\.jsonl and .*other\.jsonl.*--prefix"):
        merge_traces([ten, other], ten.with_name("out.jsonl"))
    assert not ten.with_name("out.jsonl").exists()


def test_an_id_that_is_too_long_with_its_prefix_is_refused(tmp_path: Path) -> None:
    source = trace_of(tmp_path / "t.jsonl", [request("x" * 127)])
    with pytest.raises(TraceError, match="its id would be longer than 128 characters with '1-' before it"):
        merge_traces([source, source], tmp_path / "out.jsonl", prefix=True)


def test_an_empty_trace_in_a_merge_is_refused(ten: Path) -> None:
    empty = ten.with_name("empty.jsonl")
    empty.touch()
    with pytest.raises(TraceError, match=r"empty\.jsonl: the trace holds no requests"):
        merge_traces([ten, empty], ten.with_name("out.jsonl"))


def test_control_images_come_along_into_another_folder(tmp_path: Path) -> None:
    source = trace_of(tmp_path / "a" / "t.jsonl", [with_image("r0"), with_image("r1")])
    out = tmp_path / "b" / "part.jsonl.gz"
    slice_trace(source, out, CountSpan(0))
    images = {use.image for one in read_trace(out) for use in one.controlnets}
    assert images == {"part-controls/c/edges.png"}
    assert (out.parent / images.pop()).read_text() == str(source.parent / "c/edges.png")
    assert sorted(file.name for file in out.parent.iterdir()) == ["part-controls", "part.jsonl.gz"]


def test_control_images_of_merged_traces_do_not_meet(tmp_path: Path) -> None:
    sources = [
        trace_of(tmp_path / folder / "t.jsonl", [with_image(f"from-{folder}")])
        for folder in ("a", "b", "out")
    ]
    merge_traces(sources, tmp_path / "out" / "all.jsonl")
    shown = {
        one.request_id: (tmp_path / "out" / one.controlnets[0].image).read_text()
        for one in read_trace(tmp_path / "out" / "all.jsonl")
    }
    assert shown == {f"from-{name}": str(tmp_path / name / "c/edges.png") for name in ("a", "b", "out")}
    assert not (tmp_path / "out" / "all-controls" / "3").exists()  # that trace's images lie there already


def test_in_the_same_folder_no_control_image_is_copied(tmp_path: Path) -> None:
    source = trace_of(tmp_path / "t.jsonl", [with_image()])
    slice_trace(source, tmp_path / "out.jsonl", CountSpan(0))
    assert list(read_trace(tmp_path / "out.jsonl")) == list(read_trace(source))
    assert not (tmp_path / "out-controls").exists()


def test_a_missing_control_image_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    source = trace_of(tmp_path / "a" / "t.jsonl", [with_image("r0"), request("r1", 1, controlnets=["depth"])])
    (tmp_path / "a" / "c" / "depth.png").unlink()
    with pytest.raises(TraceError, match=r"request r1: the control image .*depth\.png does not exist"):
        slice_trace(source, tmp_path / "b" / "out.jsonl", CountSpan(0))
    assert list((tmp_path / "b").iterdir()) == []


def test_other_control_images_are_not_mixed_with_unless_asked(tmp_path: Path) -> None:
    source = trace_of(tmp_path / "a" / "t.jsonl", [with_image()])
    out = tmp_path / "b" / "out.jsonl"
    (tmp_path / "b" / "out-controls").mkdir(parents=True)
    with pytest.raises(StorageError, match="out-controls exists; choose another -o or use --force"):
        slice_trace(source, out, CountSpan(0))
    slice_trace(source, out, CountSpan(0), overwrite=True)
    assert (tmp_path / "b" / "out-controls" / "c" / "edges.png").is_file()


@pytest.mark.parametrize("place", ["file/out.jsonl", "folder.jsonl"])
def test_a_place_that_cannot_be_written_is_one_clear_message(place: str, tmp_path: Path) -> None:
    source = trace_of(tmp_path / "a" / "t.jsonl", [with_image()])
    (tmp_path / "file").touch()
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"cannot|exists"):
        slice_trace(source, tmp_path / place, CountSpan(0))


def test_a_disk_that_fills_up_while_copying_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = trace_of(tmp_path / "a" / "t.jsonl", [with_image()])
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(StorageError, match=r"cannot copy control images to .*out-controls: No space left"):
        slice_trace(source, tmp_path / "b" / "out.jsonl", CountSpan(0))
    assert list((tmp_path / "b").iterdir()) == []


TRANSFORMS: list[Callable[[Path, Path], int]] = [
    lambda source, out: slice_trace(source, out, CountSpan(0)),
    lambda source, out: scale_trace(source, out, 2),
    lambda source, out: merge_traces([source, source], out, prefix=True),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "backwards", "unknown field", "overlong", "missing"]
)
def test_a_damaged_source_is_one_clear_message_and_nothing_is_written(
    damage: str, transform: Callable[[Path, Path], int], ten: Path
) -> None:
    if damage == "truncated":
        data = gzip.compress(ten.read_bytes() * 50, mtime=0)
        ten.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        ten.write_text("")
    elif damage == "missing":
        ten.unlink()
    else:
        line = {
            "backwards": '{"request_id": "z", "timestamp": 1, "prompt": ""}',
            "unknown field": '{"request_id": "z", "timestamp": 100, "prompt": "", "steps": 3}',
            "overlong": "x" * (1 << 21),
        }[damage]
        with ten.open("a") as file:
            file.write(line + "\n")
    before = sorted(ten.parent.iterdir())
    with pytest.raises(SwiftdiffError, match=r"ten\.jsonl"):
        transform(ten, ten.with_name("out.jsonl"))
    assert sorted(ten.parent.iterdir()) == before


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_trace_never_overwrites_itself_nor_by_chance_another(
    transform: Callable[[Path, Path], int], ten: Path
) -> None:
    with pytest.raises(StorageError, match="is the trace that is read; name another"):
        transform(ten, ten.parent / "." / "ten.jsonl")
    other = ten.with_name("other.jsonl")
    other.write_text("precious")
    with pytest.raises(StorageError, match=r"other\.jsonl exists; choose another -o or use --force"):
        transform(ten, other)
    assert other.read_text() == "precious"


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_same_input_gives_the_same_bytes(transform: Callable[[Path, Path], int], ten: Path) -> None:
    first, second = ten.parent / "1.jsonl.gz", ten.parent / "2.jsonl.gz"
    transform(ten, first)
    transform(ten, second)
    assert first.read_bytes() == second.read_bytes()


def test_the_new_trace_tells_where_it_comes_from(ten: Path) -> None:
    made = ten.with_name("made.jsonl")
    origin = Provenance(command="trace import csv", swiftdiff="0", filled_in={"prompt": "scenes"})
    write_trace(made, read_trace(ten), origin)
    part, fast, both = (ten.with_name(f"{name}.jsonl") for name in ("part", "fast", "both"))
    slice_trace(made, part, TimeSpan(1, 4))
    scale_trace(part, fast, 2)
    found = read_provenance(fast)
    assert found is not None
    assert (found.command, found.options) == ("trace scale", {"speed": 2})
    assert found.sources[0].sha256 == trace_sha256(part)
    assert found.parent is not None
    assert (found.parent.command, found.parent.options) == ("trace slice", {"from": 1, "to": 4})
    assert found.parent.parent == origin
    assert all_filled_in(found) == {"prompt": "scenes"}
    merge_traces([fast, ten], both, prefix=True)
    merged = read_provenance(both)
    assert merged is not None
    assert merged.parent is None
    assert [source.name for source in merged.sources] == ["fast.jsonl", "ten.jsonl"]
    assert merged.filled_in == {"fast.jsonl: prompt": "scenes"}


def test_memory_does_not_grow_with_the_length_of_a_merge(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        prompt = "a red circle " * 800
        many = (one.model_copy(update={"prompt": prompt}) for one in requests_at(*range(count)))
        source = tmp_path / f"{count}.jsonl"
        write_trace(source, many)
        tracemalloc.start()
        merge_traces([source, source], tmp_path / f"{count}-out.jsonl", prefix=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(300) - peak_bytes(100) < 200 * 10_400 / 5
