from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftdiff.errors import TraceError
from swiftdiff.trace.importers.values import adapters, adapters_from_text, number, text, whole


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("", ()),
        ("[]", ()),
        ("a", (("a", None),)),
        ("a; b ;", (("a", None), ("b", None))),
        ('["a", 7]', (("a", None), ("7", None))),
        ("['a', None]", (("a", None),)),
        ('[{"id": "a", "scale": 0.5}]', (("a", 0.5),)),
        ("[{'modelVersionId': 'a', 'scale': 1.0}]", (("a", 1.0),)),
    ],
)
def test_adapters_in_a_cell_are_read_however_they_are_written(cell: str, expected: object) -> None:
    assert adapters_from_text(cell, "loras", "f:1") == expected


@pytest.mark.parametrize(
    "cell",
    [
        "[1.5]", "[[1]]", "[{'id': 'a', 'weight': 1}]", "[{'scale': 1}]", "['']", "[True]", "['a'",
        "[__import__('os')]", "[" * 999, "[{'id': 'a', 'scale': 'x'}]", "[{'id': 'a', 'scale': 1e999}]",
        f"['{'a' * 300}']", str(["a"] * 65), str(["a" * 250] * 64 + ["b"] * 9), "[{[]: 1}]",
        ";".join("a" * 70),
    ],
)  # fmt: skip
def test_a_cell_that_holds_anything_else_is_refused_with_its_place(cell: str) -> None:
    with pytest.raises(TraceError, match=r"^f:1: loras"):
        adapters_from_text(cell, "loras", "f:1")


@given(st.text(max_size=60))
def test_any_text_gives_adapters_or_a_trace_error(cell: str) -> None:
    for written in (cell, f"[{cell}]"):
        with contextlib.suppress(TraceError):
            assert all(identity for identity, _ in adapters_from_text(written, "loras", "f:1"))


def test_numbers_are_finite_and_whole_ones_may_be_written_with_a_point() -> None:
    assert (number("1.5", "f", ""), number("", "f", ""), number(None, "f", "")) == (1.5, None, None)
    assert (whole("30.0", "f", ""), whole(30, "f", ""), text(7, "f", "")) == (30, 30, "7")
    for value in ("x", "nan", float("inf"), True, [], 10**400):
        with pytest.raises(TraceError, match=r"f:1: steps is .* but must be a number"):
            number(value, "steps", "f:1")
    with pytest.raises(TraceError, match="must be a whole number"):
        whole(1.5, "steps", "f:1")
    with pytest.raises(TraceError, match="must be a text"):
        text([], "prompt", "f:1")
    with pytest.raises(TraceError, match="loras is 'a', but must be a list"):
        adapters("a", "loras", "f:1")
