from __future__ import annotations

import pytest

from swiftdiff.errors import ConfigError
from swiftdiff.world.admission import Admission, BudgetError


def test_a_session_is_let_in_when_another_has_left() -> None:
    admission = Admission(session_bytes=400, max_sessions=9, budget_bytes=1000)
    assert admission.capacity == 2
    admission.admit()
    admission.admit()
    with pytest.raises(BudgetError, match="memory_budget_mb"):
        admission.admit()
    assert admission.used_bytes == 800
    admission.release()
    admission.admit()
    assert admission.num_sessions == 2


def test_there_are_never_more_sessions_than_may_be() -> None:
    admission = Admission(session_bytes=1, max_sessions=1, budget_bytes=None)
    admission.admit()
    with pytest.raises(BudgetError, match="max_sessions is 1"):
        admission.admit()


def test_a_budget_that_fits_no_session_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"memory_budget_mb is 1, but one session's cache takes 2 MB"):
        Admission(session_bytes=2_000_000, max_sessions=4, budget_bytes=1_000_000)


def test_a_budget_of_exactly_one_session_fits_one() -> None:
    assert Admission(session_bytes=5, max_sessions=4, budget_bytes=5).capacity == 1
