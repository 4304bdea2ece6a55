from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from importing import imported, refusal, write

START = 1_700_000_000


def element(at: float = 0, **changes: Any) -> dict[str, Any]:
    fields = {
        "timestamp": START + at,
        "ip": "10.0.0.1",
        "scene_id": "A",
        "base_model_id": "m1",
        "controlnets": [],
        "loras": [],
    }
    return fields | changes


def source(folder: Path, *elements: object) -> Path:
    return write(folder / "katz.json", json.dumps(elements, indent=1))


def test_adapters_are_kept_and_control_images_are_drawn_of_a_kind_that_the_id_decides(tmp_path: Path) -> None:
    path = source(
        tmp_path,
        element(controlnets=["c77"], loras=[5, "x", 5, None]),
        element(1.5, controlnets=None, loras=None, base_model_id=None),
        element(2, controlnets=["c77", "edges"]),
    )
    requests, summary = imported("katz", path)
    assert [r.timestamp for r in requests] == [0, 1500, 2000]
    assert [(use.id, use.scale) for use in requests[0].loras] == [("5", 2.0), ("x", 1.0)]
    kinds = [[use.image.split("-")[-1] for use in r.controlnets] for r in requests]
    assert kinds[0][0] == kinds[2][0]
    assert kinds[2][1] == "edges.png"
    images = {use.image for r in requests for use in r.controlnets}
    assert summary.num_control_images == len(images) == 3
    assert all((summary.trace.parent / image).is_file() for image in images)
    filled = summary.provenance.filled_in
    assert filled["loras"] == "those named twice are merged, their scales added (1 request)"
    assert filled["controlnets.image"].endswith("of a kind that the id decides (2 requests)")
    assert filled["time unit"] == "detected: seconds"


def test_one_service_and_one_base_model_can_be_chosen_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = source(
        tmp_path, element(), element(1, scene_id="B"), element(2, base_model_id="m2"), element(3), element(4)
    )
    requests, summary = imported("katz", path, scene="A", base_model="m1", limit=2)
    assert [r.timestamp for r in requests] == [0, 3000]
    assert summary.provenance.dropped == {"of another base model": 1, "of another service (scene_id)": 1}
    assert summary.provenance.options == {"limit": 2, "base_model": "m1", "scene": "A"}
    assert "base_model" not in summary.provenance.filled_in


def test_an_unsorted_file_is_refused_unless_it_is_to_be_sorted(tmp_path: Path) -> None:
    path = source(tmp_path, element(5, loras=["b"]), element(5, loras=["c"]), element(0, loras=["a"]))
    assert "element 3: timestamp goes back by 5 s; sort the file or use --sort" in refusal("katz", path)
    requests, _ = imported("katz", path, sort=True)
    assert [(r.timestamp, r.loras[0].id) for r in requests] == [(0, "a"), (5000, "b"), (5000, "c")]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (element(timestamp=(START + 1) * 1000), "looks like milliseconds, but the first one was seconds"),
        (element(1e8), "timestamp is 1.16e+03 days after the one before it"),
        (element(timestamp=None), "timestamp is None, but must be a number"),
        (element(lora=[]), "unknown field 'lora'; did you mean 'loras'?"),
        (element(loras="x"), "loras is 'x', but must be a list of adapter ids"),
        (element(loras=[{"name": "x"}]), "loras[0] is {'name': 'x'}, but must be an object with an id"),
        (element(scene_id=["A"]), "scene_id is ['A'], but must be a text"),
        ({"ip": "10.0.0.1"}, "field timestamp is missing"),
        (7, "the element is 7, but must be an object with named fields"),
    ],
)
@pytest.mark.parametrize("sort", [False, True])
def test_a_wrong_element_is_refused_with_its_number(
    wrong: object, message: str, sort: bool, tmp_path: Path
) -> None:
    path = source(tmp_path, element(), wrong)
    said = refusal("katz", path, sort=sort)
    assert said.startswith(f"{path}, element 2: ")
    assert message in said


def test_a_truncated_gzip_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    data = gzip.compress(json.dumps([element(i, controlnets=["c"]) for i in range(20_000)]).encode())
    path = write(tmp_path / "katz.json", data[: len(data) // 2])
    assert "the gzip data ends here, unfinished; copy the file again" in refusal("katz", path)


@pytest.mark.parametrize("content", ["[]", " [ ] \n"])
def test_an_array_without_requests_is_refused(content: str, tmp_path: Path) -> None:
    path = write(tmp_path / "katz.json", content)
    assert refusal("katz", path) == f"{path}: no requests to import; it is empty"


def test_when_nothing_is_left_it_is_said_why(tmp_path: Path) -> None:
    path = source(tmp_path, element(), element(1))
    assert "no requests to import; dropped: 2 of another base model" in refusal("katz", path, base_model="m9")
