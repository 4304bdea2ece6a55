from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from swiftdiff.errors import TraceError
from swiftdiff.request import ImageRequest
from swiftdiff.trace import Provenance, read_provenance, read_trace, scan_trace, source_of, write_trace

REQUESTS = [ImageRequest(request_id=f"r{i}", timestamp=float(i), prompt="a red circle") for i in range(3)]
PARENT = Provenance(command="trace import csv", swiftdiff="0.1.0", seed=1, dropped={"failed": 2})
CHILD = Provenance(
    command="trace slice", swiftdiff="0.1.0", options={"limit": 3, "from": None}, parent=PARENT
)


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_a_trace_keeps_where_it_comes_from_and_reads_as_if_it_were_not_there(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    assert write_trace(path, REQUESTS, CHILD) == 3
    assert list(read_trace(path)) == REQUESTS
    assert read_provenance(path) == CHILD
    assert (info := scan_trace(path)).provenance == CHILD
    assert info.num_requests == 3


def test_a_trace_without_the_line_has_no_provenance(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.jsonl", REQUESTS)
    assert read_provenance(tmp_path / "t.jsonl") is None
    assert scan_trace(tmp_path / "t.jsonl").provenance is None


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_provenance_that_is_known_only_at_the_end_is_still_the_first_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    written: list[str] = []

    def counted() -> Iterator[ImageRequest]:
        for request in REQUESTS:
            written.append(request.request_id)
            yield request

    def provenance() -> Provenance:
        return Provenance(command="c", swiftdiff="0", dropped={"written": len(written)})

    write_trace(path, counted(), provenance)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    assert json.loads(data.splitlines()[0])["provenance"]["dropped"] == {"written": 3}
    assert list(read_trace(path)) == REQUESTS
    assert list(tmp_path.iterdir()) == [path]


def test_the_line_numbers_of_errors_count_the_provenance_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, [*REQUESTS, REQUESTS[2]], CHILD)
    with pytest.raises(TraceError, match=r":5: request_id is 'r2', .*\(line 4 has it too\)"):
        list(read_trace(path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"provenance": 3}', "provenance is 3, but must be an object with named fields"),
        ('{"provenance": {"command": "c"}}', "field provenance.swiftdiff is missing"),
        (
            '{ "provenance" : {"command": "c", "swiftdiff": "0", "sed": 1}}',
            "unknown field 'sed'; did you mean 'seed'?",
        ),
        ('{"provenance": {', "not valid JSON"),
    ],
)
def test_a_wrong_provenance_line_is_refused_by_whoever_reads_it(
    line: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(line + "\n")
    for reading in (read_provenance, lambda path: list(read_trace(path))):
        with pytest.raises(TraceError) as caught:
            reading(path)
        assert str(caught.value).startswith(f"{path}:1: ")
        assert message in str(caught.value)


def test_a_provenance_line_further_down_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, REQUESTS, PARENT)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(TraceError, match=r":5: a provenance line inside the trace.*swiftdiff trace merge"):
        list(read_trace(path))


def test_a_source_is_its_name_and_hash_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    source = source_of(tmp_path / "a.csv")
    assert (source.name, source.sha256[:8]) == ("a.csv", "e3b0c442")
