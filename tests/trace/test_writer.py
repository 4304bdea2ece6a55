from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.errors import StorageError
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.trace import format_request, parse_request, read_trace, write_trace

FINITE = st.floats(allow_nan=False, allow_infinity=False)
IDS = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
TEXT = st.text(max_size=30)
REQUESTS = st.builds(
    ImageRequest,
    request_id=IDS,
    timestamp=st.floats(min_value=0, allow_infinity=False),
    prompt=TEXT,
    negative_prompt=st.none() | TEXT,
    width=st.none() | st.integers(),
    height=st.none() | st.integers(),
    num_inference_steps=st.integers(),
    guidance_scale=FINITE,
    num_images=st.integers(),
    seed=st.integers(),
    controlnets=st.lists(
        st.builds(
            ControlNetUse, id=IDS, image=IDS.filter(lambda name: name != ".."), scale=FINITE, end=FINITE
        ),
        max_size=3,
    ).map(tuple),
    loras=st.lists(st.builds(LoraUse, id=IDS, scale=FINITE), max_size=2).map(tuple),
    slo_ms=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
)


def requests(count: int) -> list[ImageRequest]:
    return [ImageRequest(request_id=f"r{i}", timestamp=float(i), prompt="ä \u2028 \n") for i in range(count)]


@given(REQUESTS)
def test_a_written_request_reads_back_equal_on_one_line(request: ImageRequest) -> None:
    text = format_request(request)
    assert "\n" not in text
    assert parse_request(text, "t.jsonl:1") == request


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_written_trace_reads_back_equal(name: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / name
    assert write_trace(path, requests(3)) == 3
    assert list(read_trace(path)) == requests(3)
    assert [file.name for file in path.parent.iterdir()] == [name]


def test_equal_requests_give_equal_bytes_even_compressed(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl.gz"
    write_trace(first, requests(3))
    write_trace(second, requests(3))
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()).count(b"\n") == 3


def test_a_trace_whose_making_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("old")

    def failing() -> object:
        yield from requests(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_trace(path, failing())  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write trace"):
        write_trace(tmp_path / "file" / "t.jsonl", requests(1))
