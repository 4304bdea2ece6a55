from __future__ import annotations

import pytest

from swiftdiff import errors
from swiftdiff.errors import SwiftdiffError, TraceError


@pytest.mark.parametrize(
    "name",
    ["ConfigError", "TraceError", "AdapterError", "ModelError", "RequestError", "StorageError"],
)
def test_every_error_is_a_swiftdiff_error_and_in_the_documented_tree(name: str) -> None:
    assert issubclass(getattr(errors, name), SwiftdiffError)
    assert name in (errors.__doc__ or "")


def test_an_error_for_a_field_names_place_field_value_and_what_is_allowed() -> None:
    error = TraceError.for_field("seed", "x", "an integer", where="trace.jsonl:3")
    assert isinstance(error, TraceError)
    assert str(error) == "trace.jsonl:3: seed is 'x', but must be an integer"
    assert error.message == str(error)


def test_an_error_shortens_a_value_that_would_fill_the_screen() -> None:
    assert len(str(SwiftdiffError.for_field("prompt", "x" * 5000, "short"))) < 150
