from __future__ import annotations

import pytest

from swiftdiff.errors import TraceError
from swiftdiff.trace.importers.timestamps import MAX_GAP_MS, Clock, check_order


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1_700_000_000, 1_700_000_002),
        (1_700_000_000_000, 1_700_000_002_000),
        (1_700_000_000_000_000, 1_700_000_002_000_000),
        (1_700_000_000_000_000_000, 1_700_000_002_000_000_000),
        ("1700000000", "1700000002.0"),
        ("2024-11-15 16:57:50", "2024-11-15T16:57:52"),
        ("2024-11-15T16:57:50+01:00", "2024-11-15T15:57:52Z"),
    ],
)
def test_two_seconds_are_two_thousand_milliseconds_in_every_unit(first: object, second: object) -> None:
    clock = Clock(None, None)
    start = clock.milliseconds(first, "f:1")
    assert clock.milliseconds(second, "f:2") - start == pytest.approx(2000)


def test_small_numbers_have_the_unit_that_the_format_or_the_user_says() -> None:
    assert Clock(None, "ms").milliseconds(5, "f:1") == 5
    assert Clock("s", "ms").milliseconds(5, "f:1") == 5000
    assert Clock("us", None).milliseconds(1_700_000_000, "f:1") == 1_700_000
    with pytest.raises(TraceError, match=r"f:1: timestamp is 5, .* give --time-unit s, ms, us or ns"):
        Clock(None, None).milliseconds(5, "f:1")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (1_700_000_000, 1_700_000_001_000, "looks like milliseconds, but the first one was seconds"),
        (1_700_000_000_000, 1_700_000_001, "looks like seconds, but the first one was milliseconds"),
        ("2024-11-15 16:57:50", 1_700_000_001, "looks like a number, but the first one was dates"),
        (1_700_000_000, "2024-11-15 16:57:50", "looks like dates without a time zone, but the first one was"),
        ("2024-11-15 16:57:50", "2024-11-15 16:57:50Z", "looks like dates with a time zone"),
    ],
)
def test_a_second_kind_of_time_is_refused(first: object, second: object, message: str) -> None:
    clock = Clock(None, None)
    clock.milliseconds(first, "f:1")
    with pytest.raises(TraceError, match=f"f:2: .*{message}"):
        clock.milliseconds(second, "f:2")


@pytest.mark.parametrize("value", [None, "", "soon", True, [1], float("nan"), "inf", 10**400])
def test_what_is_no_time_is_refused(value: object) -> None:
    with pytest.raises(TraceError, match=r"f:1: timestamp is .* but must be a number, or a date and time"):
        Clock("s", None).milliseconds(value, "f:1")


def test_times_that_go_back_or_jump_by_a_year_are_refused() -> None:
    check_order(5, 5, "f:2")
    check_order(0, MAX_GAP_MS, "f:2")
    with pytest.raises(TraceError, match=r"f:2: timestamp goes back by 1.5 s; .*--sort"):
        check_order(2000, 500, "f:2")
    with pytest.raises(
        TraceError, match=r"f:2: timestamp is 1e\+03 days after the one before it; does the time unit"
    ):
        check_order(0, 86_400_000_000, "f:2")
