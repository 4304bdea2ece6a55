from __future__ import annotations

import gzip
import hashlib
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.errors import TraceError
from swiftdiff.trace import TraceInfo, parse_request, read_trace, scan_trace
from swiftdiff.trace import reader as reader_module
from swiftdiff.trace.uniqueness import SeenIds


def line(**changes: Any) -> str:
    return json.dumps({"request_id": "a", "timestamp": 0, "prompt": "a red circle"} | changes)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{text}\n" for text in lines), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(TraceError) as caught:
        list(read_trace(path))
    return str(caught.value)


def test_a_trace_is_read_in_order_with_defaults_filled_in(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.jsonl",
        line(),
        line(
            request_id="b",
            timestamp=1.5,
            controlnets=[{"id": "edges", "image": "controls/b.png", "end": 0.5}],
            loras=[{"id": "neon", "scale": 1}],
        ),
    )
    first, second = read_trace(path)
    assert (first.request_id, first.width, first.num_images, first.loras) == ("a", None, 1, ())
    assert second.controlnets[0].scale == 1.0
    assert second.loras[0].id == "neon"


def test_blank_lines_a_byte_order_mark_crlf_and_a_missing_last_line_end_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line().encode() + b"\r\n\r\n  \n" + line(request_id="b").encode())
    assert [request.request_id for request in read_trace(path)] == ["a", "b"]


def test_a_gzip_trace_reads_like_a_plain_one_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(gzip.compress(f"{line()}\n".encode()))
    assert [request.request_id for request in read_trace(path)] == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line(seed="7"), "seed is '7', but must be an integer"),
        (line(seed=7.5), "seed is 7.5, but must be an integer"),
        (line(num_images=True), "num_images is True, but must be an integer"),
        (line(prompt=None), "prompt is None, but must be a string"),
        (line(timestamp=-1), "timestamp is -1, but must be at least 0"),
        (line(timestamp=float("nan")), "timestamp is nan, but must be a finite number"),
        (line(guidance_scale=float("inf")), "guidance_scale is inf, but must be a finite number"),
        (
            line(guidance_scale=1).replace("1}", "1e999}"),
            "guidance_scale is inf, but must be a finite number",
        ),
        (line(slo_ms=0), "slo_ms is 0, but must be greater than 0"),
        (line(sede=1), "unknown field 'sede'; did you mean 'seed'? known: controlnets, guidance_scale"),
        (line(loras="neon"), "loras is 'neon', but must be a list"),
        (line(loras=[{"id": "neon", "weight": 1}]), "unknown field 'weight'; known: id, scale in loras[0]"),
        (line(loras=[{"id": "neon"}, {"scale": 1}]), "field loras[1].id is missing"),
        (line(controlnets=["edges"]), "controlnets[0] is 'edges', but must be an object with named fields"),
        (
            line(controlnets=[{"id": "e", "image": "../x"}]),
            "controlnets[0].image is '../x', but must be a path below",
        ),
        (line(request_id="a/b"), "request_id is 'a/b', but must be 1 to 128 letters"),
        (line().replace("{", '{"seed": 1, "seed": 2, '), "field seed is given more than once"),
        (line(loras=[{"id": "x"}]).replace('"x"', '"x", "id": "y"'), "field id is given more than once"),
        ("[1, 2]", "the line is [1, 2], but must be an object with named fields"),
        ("{'request_id': 1}", "not valid JSON"),
        (line()[:-1], "not valid JSON: EOF while parsing an object at character"),
        (line(seed=0).replace(": 0}", ": " + "9" * 5000 + "}"), "not valid JSON: number out of range"),
        ("[" * 5000, "not valid JSON: recursion limit exceeded"),
    ],
)
def test_a_wrong_line_is_refused_with_file_line_field_and_what_would_be_right(
    text: str, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "t.jsonl", line(request_id="first"), "", text)
    assert refusal(path).startswith(f"{path}:3: {message}")


def test_further_problems_of_a_line_are_counted(tmp_path: Path) -> None:
    assert "(and 2 more problems here)" in refusal(write(tmp_path / "t.jsonl", "{}"))


def test_requests_before_a_wrong_line_are_yielded(tmp_path: Path) -> None:
    requests = read_trace(write(tmp_path / "t.jsonl", line(), "nonsense"))
    assert next(requests).request_id == "a"
    with pytest.raises(TraceError):
        next(requests)


def test_a_repeated_request_id_is_refused_and_both_lines_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line(), line(request_id="b"), line())
    assert (
        refusal(path) == f"{path}:3: request_id is 'a', but must be unique in the trace (line 1 has it too)"
    )


def test_timestamps_that_go_backwards_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line(timestamp=5), line(request_id="b", timestamp=4))
    assert refusal(path).startswith(
        f"{path}:2: timestamp is 4.0, but must be at least the timestamp before it, 5"
    )


def test_equal_timestamps_are_fine(tmp_path: Path) -> None:
    assert len(list(read_trace(write(tmp_path / "t.jsonl", line(), line(request_id="b"))))) == 2


def test_an_overlong_line_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    with path.open("wb") as file:
        file.write(f"{line()}\n".encode())
        file.truncate(1 << 33)  # a line of eight sparse gigabytes
    assert (
        refusal(path) == f"{path}:2: the line is longer than 1048576 bytes, the most that a request may have"
    )


def test_text_that_is_not_utf8_is_refused_with_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(line(prompt="caf@").encode().replace(b"@", b"\xe9"))
    assert "t.jsonl:1: not UTF-8 text: byte 0xe9 at position" in refusal(path)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "header"])
def test_damaged_gzip_is_refused_with_the_line(damage: str, tmp_path: Path) -> None:
    data = bytearray(gzip.compress("".join(line(request_id=f"r{i}") + "\n" for i in range(5000)).encode()))
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        del data[3:]
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(data)
    assert path.name in (text := refusal(path))
    assert "copy the file again" in text or "not valid JSON" in text or "unknown field" in text


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
def test_a_trace_without_requests_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(TraceError, match="holds no requests"):
        scan_trace(path)


@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_a_trace_that_cannot_be_opened_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    if kind == "folder":
        path.mkdir()
    assert refusal(path).startswith(f"cannot read trace {path}: ")


def test_a_pipe_is_refused_since_a_trace_is_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert "save it to a file first" in refusal(path)


def test_a_scan_counts_hashes_and_says_where_control_images_are(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", line(num_images=3), line(request_id="b", timestamp=2500))
    info = scan_trace(path)
    assert info == TraceInfo(path, hashlib.sha256(path.read_bytes()).hexdigest(), 2, 4, 2.5)
    assert info.images_root == tmp_path


def test_memory_does_not_grow_with_the_length_of_the_trace(tmp_path: Path) -> None:
    prompt = "a red circle " * 800

    def peak_bytes(count: int) -> int:
        path = write(
            tmp_path / f"{count}.jsonl", *(line(request_id=f"r{i}", prompt=prompt) for i in range(count))
        )
        tracemalloc.start()
        assert sum(1 for _ in read_trace(path)) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(300) - peak_bytes(100) < 200 * len(prompt) / 10


def test_ids_are_packed_to_eight_bytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swiftdiff.trace.uniqueness._RECENT", 8)
    seen = SeenIds()
    assert all(seen.add(f"r{i}") for i in range(800))
    assert seen._older.nbytes >= 8 * (800 - 800 // 16)
    assert len(seen._recent) <= 800 // 16


def test_a_repeat_is_found_among_ids_whose_hashes_were_packed_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swiftdiff.trace.uniqueness._RECENT", 8)
    path = write(tmp_path / "t.jsonl", *(line(request_id=f"r{i % 99}") for i in range(100)))
    assert refusal(path).startswith(f"{path}:100: request_id is 'r0'")


def test_two_ids_that_share_a_hash_are_not_taken_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful:
        def add(self, request_id: str) -> bool:
            return False

    monkeypatch.setattr(reader_module, "SeenIds", Forgetful)
    assert len(list(read_trace(write(tmp_path / "t.jsonl", line(), line(request_id="b"))))) == 2


def complaint_about(line: str | bytes) -> str | None:
    try:
        parse_request(line, "t.jsonl:1")
    except TraceError as error:
        return str(error)
    return None


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_trace_error(data: bytes) -> None:
    complaint = complaint_about(data)
    assert complaint is None or complaint.startswith("t.jsonl:1: ")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["request_id", "timestamp", "prompt", "width", "seed", "controlnets", "loras", "slo_ms"]
)


@given(st.dictionaries(FIELDS | st.text(max_size=8), JSON_VALUES, max_size=6))
def test_any_json_object_gives_a_request_or_a_trace_error_in_one_line(fields: dict[str, Any]) -> None:
    complaint = complaint_about(json.dumps({"request_id": "a", "timestamp": 0, "prompt": ""} | fields))
    assert complaint is None or (complaint.startswith("t.jsonl:1: ") and "\n" not in complaint)
