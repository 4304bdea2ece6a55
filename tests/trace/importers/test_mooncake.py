from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from importing import imported, refusal, write


def lines(*objects: dict[str, Any]) -> str:
    return "".join(json.dumps(fields) + "\n" for fields in objects)


def test_small_timestamps_are_milliseconds_and_what_is_not_used_is_said(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.jsonl.gz",
        lines({"timestamp": 100, "input_length": 7, "hash_ids": [1]}, {"timestamp": 2500, "hash_ids": []})
        + "\n",
    )
    requests, summary = imported("mooncake", path)
    assert [r.timestamp for r in requests] == [0, 2400]
    filled = summary.provenance.filled_in
    assert (filled["hash_ids"], filled["input_length"]) == (
        "left out: not used",
        "left out: not used (1 request)",
    )
    assert "time unit" in summary.provenance.filled_in
    assert [r.timestamp for r in imported("mooncake", path, time_unit="s")[0]] == [0, 2_400_000]


def test_fields_named_as_a_traces_own_are_used(tmp_path: Path) -> None:
    fields = {
        "prompt": "a cat", "negative_prompt": "a dog", "width": 64, "height": 128.0, "guidance_scale": 3,
        "num_inference_steps": 4, "num_images": 2, "slo_ms": 900, "loras": ["a", {"id": "b", "scale": 0.5}],
        "controlnets": ["edges"],
    }  # fmt: skip
    requests, summary = imported("mooncake", write(tmp_path / "m.jsonl", lines({"timestamp": 0} | fields)))
    (request,) = requests
    shown = request.model_dump(include=set(fields) - {"loras", "controlnets"})
    assert shown == {name: fields[name] for name in shown}
    assert [(use.id, use.scale) for use in request.loras] == [("a", 1.0), ("b", 0.5)]
    assert summary.provenance.filled_in["controlnets.image"].startswith("drawn from a made-up scene")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", ":2: not valid JSON: Expecting property name"),
        ("[" * 100_000, ":2: not valid JSON: nested too deeply"),
        ('{"timestamp": ' + "9" * 5000 + "}", ":2: not valid JSON: Exceeds the limit"),
        ("[1]", ":2: the line is [1], but must be an object"),
        ("{}", ":2: field timestamp is missing; it is the arrival in milliseconds"),
        ('{"timestamp": -5}', ":2: timestamp goes back by 5 ms"),
        ('{"timestamp": 1700000000000}', ":2: timestamp is 1.97e+04 days after the one before it"),
        ('{"timestamp": 1, "width": 7}', ":2: width is 7, but must be a multiple of 8"),
        ('{"timestamp": 1, "loras": [""]}', ":2: loras[0] is '', but must be an id"),
        (
            '{"timestamp": 1, "prompt": "' + "x" * (1 << 20) + '"}',
            ":2: the line is longer than 1048576 bytes",
        ),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", lines({"timestamp": 0}) + line + "\n")
    assert refusal("mooncake", path).startswith(f"{path}{message}")


def test_a_line_of_gigabytes_is_refused_without_being_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    # its hash would take long, and is taken first
    from swiftdiff.errors import TraceError
    from swiftdiff.trace.importers.mooncake import read_mooncake
    from swiftdiff.trace.importers.options import ImportOptions

    reading = read_mooncake(path, ImportOptions(), lambda path, position: None)
    with pytest.raises(TraceError, match=r"m\.jsonl:1: the line is longer than 1048576 bytes"):
        list(reading.rows)


def test_ever_new_fields_do_not_grow_what_is_said_without_end(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", lines(*({"timestamp": i, f"field{i}": 1} for i in range(500))))
    filled = imported("mooncake", path)[1].provenance.filled_in
    assert len(filled) <= 202
    assert filled["more"].startswith("too many kinds to tell")
