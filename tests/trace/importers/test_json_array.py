from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.errors import TraceError
from swiftdiff.trace import files
from swiftdiff.trace.importers.json_array import read_array


def elements(path: Path) -> list[Any]:
    return [element for _, element in read_array(path)]


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        elements(path)
    return str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(
    array=st.lists(JSON, max_size=8),
    chunk=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
    ascii_=st.booleans(),
)
def test_any_array_reads_the_same_however_it_is_cut_into_chunks(
    array: list[Any], chunk: int, indent: int | None, ascii_: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("array") / "a.json"
    path.write_text(json.dumps(array, indent=indent, ensure_ascii=ascii_), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CHUNK_BYTES", chunk)
        assert elements(path) == array


def test_a_gzip_array_and_a_byte_order_mark_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf [1, 22]\n"))
    assert list(read_array(path)) == [(f"{path}, element 1", 1), (f"{path}, element 2", 22)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a JSON array: it must begin with '['"),
        (b'{"timestamp": 1}', "not a JSON array: it must begin with '['"),
        (b"[1, 2", "element 2: ',' or ']' must follow, but there is the end of the file"),
        (b"[1 2]", "element 1: ',' or ']' must follow, but there is '2'"),
        (b"[1, ]", "element 2: not valid JSON: Expecting value at character 1 of the element"),
        (b'[{"a": 1}, {"a" 1}]', "element 2: not valid JSON: Expecting ':' delimiter at character 6"),
        (b'[{"a": 1}, {"a": "b', "element 2: not valid JSON: Unterminated string"),
        (b"[NaN]", "element 1: not valid JSON: NaN is not a number in JSON"),
        (b"[" + b"9" * 5000 + b"]", "element 1: not valid JSON: Exceeds the limit"),
        (b"[" * 100_000, "element 1: not valid JSON: nested too deeply"),
        (b"[1][2]", "there is '[' after the end of the array"),
        (b'["\xe9"]', "not UTF-8 text: byte 0xe9"),
        (
            gzip.compress(json.dumps([{"a": "b" * i} for i in range(999)]).encode(), mtime=0)[:-900],
            "gzip data ends here",
        ),
    ],
)
def test_what_is_no_array_is_refused_with_the_element(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert message in refusal(path)


def test_an_element_of_gigabytes_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.write(b'[{"a": 1}, {"a": "')
        file.truncate(1 << 33)  # sparse zeros: a string without end
    tracemalloc.start()
    assert "element 2: not valid JSON" in refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


def test_memory_does_not_grow_with_the_length_of_the_array(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        path = tmp_path / f"{count}.json"
        path.write_text(json.dumps(["x" * 9000] * count))
        tracemalloc.start()
        assert sum(1 for _ in read_array(path)) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(900) - peak_bytes(300) < 600 * 9000 / 10
