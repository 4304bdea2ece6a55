from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from importing import imported, refusal, write


def test_columns_named_as_fields_need_no_mapping(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.csv",
        "timestamp,prompt,loras,num_inference_steps\r\n"
        '2024-11-15 16:57:50,"a ""red"" cat,\nlarge",a;b,30\r\n'
        "2024-11-15 16:57:51.250,,,\r\n\r\n",
    )
    first, second = imported("csv", path)[0]
    assert first.prompt == 'a "red" cat,\nlarge'
    assert [use.id for use in first.loras] == ["a", "b"]
    assert (second.timestamp, second.loras, second.num_inference_steps) == (1250, (), 20)


def test_only_the_columns_that_are_mapped_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "ts,user,lora_ids\n1700000000,ann,\"['a', 'b']\"\n1700000001,bob,[]\n")
    requests, summary = imported("csv", path, columns={"timestamp": "ts", "loras": "lora_ids"})
    assert [len(r.loras) for r in requests] == [2, 0]
    assert summary.provenance.options == {"columns": {"timestamp": "ts", "loras": "lora_ids"}}


def test_a_file_without_times_needs_made_up_arrivals(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "loras\na\nb\nc\n")
    assert "has no arrival times; make them up with --request-rate R" in refusal("csv", path)
    requests, _ = imported("csv", path, request_rate=1.0, seed=3)
    assert requests[0].timestamp == 0 < requests[1].timestamp < requests[2].timestamp


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the file is empty; its first line must name the columns"),
        ("\n\n", {}, "the file is empty; its first line must name the columns"),
        ("timestamp\n", {}, "no requests to import; it is empty"),
        ("timestamp,lora\n1,a\n", {}, ":1: unknown column 'lora'; did you mean 'loras'?"),
        ("timestamp,timestamp\n1,1\n", {}, ":1: column 'timestamp' is there more than once"),
        (
            "ts\n1\n",
            {"columns": {"timestamp": "tz"}},
            ":1: unknown column 'tz'; known: ts",
        ),
        (
            "ts\n1\n",
            {"columns": {"time": "ts"}},
            "--columns: unknown field 'time'; did you mean 'timestamp'?",
        ),
        ("timestamp\n5\n", {}, ":2: timestamp is '5', which does not tell its unit; give --time-unit"),
        ("timestamp\nnan\n", {}, ":2: timestamp is 'nan', but must be a number"),
        ("timestamp,width\n1,x\n", {"time_unit": "s"}, ":2: width is 'x', but must be a number"),
        ("timestamp,width\n1\n", {}, ":2: 1 cells, but the header names 2 columns"),
        ('timestamp,prompt\n1,"open\n', {}, "not valid CSV: unexpected end of data; is a quote"),
        ('timestamp,prompt\n1,"' + "x\n" * 99_999, {}, "not valid CSV: field larger than field limit"),
        ("timestamp\n5\n", {"scene": "A"}, "--scene has a meaning only with katz"),
        ("timestamp\n5\n", {"join": "rows"}, "--join has a meaning only with gentd26"),
        ("timestamp\n5\n", {"request_rate": 1.0}, "--request-rate is for sources without arrival times"),
        (
            "timestamp,controlnets\n5,\n",
            {"controlnet_share": 0.5},
            "--controlnet-share is for sources that list no",
        ),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_left(
    text: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert message in refusal("csv", write(tmp_path / "t.csv", text), **options)
