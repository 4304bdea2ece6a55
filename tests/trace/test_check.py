from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_requests import requests_at, trace_of, with_loras

from swiftdiff.errors import TraceError
from swiftdiff.resources import path as resource
from swiftdiff.trace import Provenance, read_trace, write_trace
from swiftdiff.trace.check import check_trace
from swiftdiff.trace.findings import MAX_KINDS, MAX_LINES, OTHER, Finding, Findings


def line(**changes: Any) -> str:
    return json.dumps({"request_id": "a", "timestamp": 0, "prompt": "a red circle"} | changes)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return path


def only(path: Path) -> Finding:
    (finding,) = check_trace(path).findings
    return finding


def test_the_shipped_trace_has_nothing_wrong() -> None:
    report = check_trace(resource("quickstart.jsonl"))
    assert report.findings == ()
    assert (report.num_requests, report.complete) == (16, True)


def test_all_mistakes_are_found_by_kind_with_their_first_lines(tmp_path: Path) -> None:
    bad_seeds = [line(request_id=f"s{number}", seed="7") for number in range(7)]
    path = write(
        tmp_path / "t.jsonl",
        line(timestamp=5),
        *bad_seeds,
        "",
        "{nonsense",
        line(request_id="b", timestamp=4, sede=1, width="wide"),
        line(request_id="c", timestamp=4),
        line(timestamp=4),
        line(request_id="d", timestamp=6),
    )
    report = check_trace(path)
    found = {finding.kind: finding for finding in report.findings}
    assert found["seed must be an integer"] == Finding(
        "error", "seed must be an integer", 7, (2, 3, 4, 5, 6), "seed is '7', but must be an integer"
    )
    assert found["not valid JSON"].lines == (10,)
    assert found["unknown field sede"].lines == found["width must be an integer"].lines == (11,)
    assert "did you mean 'seed'?" in found["unknown field sede"].example
    assert found["timestamp goes backwards"].lines == (12,)
    assert found["request_id is repeated"].lines == (13,)
    assert found["request_id is repeated"].example.endswith("(line 1 has it too)")
    assert len(found) == 6
    assert (report.num_lines, report.num_requests, report.count("error")) == (14, 4, 12)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (line(loras=[{"id": "neon"}, {"id": "night", "weight": 1}]), "unknown field loras.weight"),
        (line(controlnets=[{"id": "edges"}]), "controlnets.image is missing"),
        (line(controlnets=[{"id": "edges", "image": "gone.png"}]), "a control image is missing"),
        (line(num_inference_steps=0), "cannot be served: num_inference_steps"),
        (line(loras=[{"id": "neon"}, {"id": "neon"}]), "cannot be served: loras"),
        (line().replace("{", '{"seed": 1, "seed": 2, '), "a field is given more than once"),
        ("[1]", "the line must be an object with named fields"),
        ("x" * (1 << 20), "the line is too long"),
        ("", "no requests"),
    ],
)
def test_each_kind_of_mistake_is_an_error(text: str, kind: str, tmp_path: Path) -> None:
    found = only(write(tmp_path / "t.jsonl", text))
    assert (found.severity, found.kind, found.count) == ("error", kind, 1)


def test_a_line_of_gigabytes_is_passed_over_without_being_held(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        file.write(line().encode() + b"\n")
        file.truncate(1 << 27)
        file.seek(1 << 27)
        file.write(b"\n" + line(request_id="b").encode() + b"\n")
    report = check_trace(path)
    assert (report.num_requests, report.num_lines) == (2, 3)
    assert [(finding.kind, finding.lines) for finding in report.findings] == [("the line is too long", (2,))]


def test_text_that_is_not_utf8_is_reported_and_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line().encode() + b"\r\n\xff\n" + line(request_id="b").encode())
    assert check_trace(path).num_requests == 2
    assert only(path).example == "not UTF-8 text: byte 0xff at position 1"


def test_a_small_file_is_checked_up_to_where_its_gzip_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    lines = "".join(line(request_id=f"r{number}", seed=number * 999_983) + "\n" for number in range(200))
    data = gzip.compress(lines.encode())
    path.write_bytes(data[: len(data) // 2])
    report = check_trace(path)
    assert 50 < report.num_requests < 150
    assert [(finding.kind, finding.lines) for finding in report.findings] == [
        ("the file is damaged", (report.num_lines + 1,))
    ]


def test_truncated_gzip_is_reported_after_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    lines = "".join(line(request_id=f"r{number}", seed=number * 999_983) + "\n" for number in range(50_000))
    data = gzip.compress(lines.encode())
    path.write_bytes(data[: len(data) // 2])
    report = check_trace(path)
    assert not report.complete
    assert [finding.kind for finding in report.findings] == ["the file is damaged"]
    assert "the gzip data ends here, unfinished" in report.findings[0].example
    assert report.num_requests > 10_000
    assert report.findings[0].lines == (report.num_lines + 1,)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot read trace"):
        check_trace(tmp_path / "t.jsonl")


def test_checking_stops_after_so_many_errors(tmp_path: Path) -> None:
    report = check_trace(write(tmp_path / "t.jsonl", *["{}"] * 10), max_errors=4)
    assert not report.complete
    assert (report.num_lines, report.count("error")) == (2, 6)  # a line's errors are reported together


def test_a_provenance_line_is_no_mistake_and_a_wrong_one_is(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    write_trace(path, requests_at(0), Provenance(command="trace slice", swiftdiff="0"))
    assert check_trace(path).findings == ()
    write(path, '{"provenance": {"command": 3}}', line())
    assert only(path).kind == "the provenance line is wrong"


def test_ids_that_the_embedded_model_lacks_are_warnings(tmp_path: Path) -> None:
    path = trace_of(tmp_path / "t.jsonl", with_loras(["neon", "x", "y", "y"]))
    assert only(path).severity == "warning"
    assert only(path).example.startswith("2 ids with 3 uses, 'y' the most used")


def test_calendar_times_and_mixed_units_are_warnings(tmp_path: Path) -> None:
    path = trace_of(tmp_path / "t.jsonl", requests_at(1.7e9, 1.7e9 + 1))
    assert only(path).kind == "a late first arrival"
    path = trace_of(tmp_path / "t.jsonl", requests_at(0, 1.5, 1501))
    assert only(path).kind == "timestamp jumps about 1000-fold"
    assert only(path).severity == "warning"


def test_ids_that_only_share_a_hash_are_not_called_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swiftdiff.trace.uniqueness.SeenIds.add", lambda self, request_id: False)
    assert check_trace(write(tmp_path / "t.jsonl", line())).findings == ()


def test_kinds_and_lines_are_bounded() -> None:
    findings = Findings()
    for number in range(1000):
        findings.add("error", f"kind {number % 500}", number, "")
    finished = findings.finish()
    assert len(finished) == MAX_KINDS + 1
    assert max(len(finding.lines) for finding in finished) == MAX_LINES
    assert {finding.kind: finding.count for finding in finished}[OTHER] == 1000 - 2 * MAX_KINDS


JUNK = st.lists(
    st.sampled_from(
        [
            line(),
            line(request_id="b"),
            line(request_id="c", timestamp=9),
            line(prompt=None),
            line(seed=1.5),
            "{}",
            "",
            "[",
        ]
    ),
    max_size=6,
)


@given(JUNK)
def test_a_trace_has_no_errors_exactly_if_the_reader_takes_it(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    path = write(tmp_path_factory.mktemp("check") / "t.jsonl", *lines)
    try:
        is_read = len(list(read_trace(path))) > 0
    except TraceError:
        is_read = False
    assert (check_trace(path).count("error") == 0) == is_read
