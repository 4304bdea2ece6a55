from __future__ import annotations

import pytest
from bench_fakes import fabricate
from gpu_bench_fakes import small_gpu_options

from swiftdiff.bench.gpu_lineup import gpu_line_up, groups_of
from swiftdiff.bench.gpu_plan import Costs, Unit, describe_cut, fit, next_unit, pending_units
from swiftdiff.bench.records import Measurement
from swiftdiff.bench.settings import AdapterSetting

PLAIN, ONE = AdapterSetting(0, 0), AdapterSetting(1, 1)
GROUPS = groups_of(gpu_line_up(small_gpu_options(systems=("swiftdiff", "all-off", "bal40")), 1, (0,)))


def measured(system: str, seconds: float, setting: str, purpose: str = "measure") -> Measurement:
    (made,) = fabricate(system, [seconds], setting, view="gpu")
    return made.model_copy(update={"purpose": purpose})


def first_round() -> list[Measurement]:
    """Stock takes 10 s and swiftdiff 2 s in a setting; both start in 20 s, and warm up in 1 s a setting."""
    made = []
    for system, seconds in (("stock", 10.0), ("swiftdiff", 2.0)):
        made.append(measured(system, 20.0, "", "start"))
        for setting in ("0C/0L", "1C/1L"):
            made += [measured(system, seconds, setting), measured(system, 1.0, setting, "warmup")]
    return made


def choose(left_s: float, running: int | None = 0, repeats: int = 4) -> list[tuple[int, int]]:
    recorded = first_round()
    units = pending_units(GROUPS, repeats, recorded)
    chosen = fit(units, GROUPS, Costs(recorded, warmups=1), left_s, running)
    return [(unit.group, unit.repeat) for unit in chosen]


def test_stock_and_swiftdiff_share_the_gpu_and_every_other_system_has_it_alone() -> None:
    assert [[each.name for each in group] for group in GROUPS] == [
        ["stock", "swiftdiff"],
        ["all-off"],
        ["bal40"],
    ]


def test_on_a_gpu_that_cannot_hold_two_systems_each_has_it_alone() -> None:
    lines = gpu_line_up(small_gpu_options(systems=("swiftdiff",)), 1, (0,))
    assert [len(group) for group in groups_of(lines, 24e9)] == [1, 1]
    assert [len(group) for group in groups_of(lines, 80e9)] == [2]


def test_costs_are_those_measured_and_else_what_all_took_in_that_setting() -> None:
    costs = Costs(first_round(), warmups=2)
    assert costs.known
    assert costs.round_s(GROUPS[0], ONE) == 12.0
    assert costs.round_s(GROUPS[1], ONE) == pytest.approx(6.0)
    assert costs.round_s(GROUPS[1], AdapterSetting(3, 2)) == 0.0  # it is not measured there
    assert costs.start_s(GROUPS[0]) == 20.0 + 2 * 4 * 1.0
    assert costs.start_s(GROUPS[1]) == 20.0 + 2 * 2 * 1.0
    assert not Costs([], warmups=1).known


def test_before_anything_is_measured_only_the_first_round_is_planned() -> None:
    units = pending_units(GROUPS, 3, [])
    assert fit(units, GROUPS, Costs([], 1), 1.0, None) == [Unit(0, 0, (PLAIN, ONE))]
    assert fit(units, GROUPS, Costs([], 1), 0.0, None) == []


def test_two_repeats_come_first_then_each_other_system_once_then_further_repeats() -> None:
    # A further repeat of the first group takes 24 s; another system 34 s at first and 12 s then.
    assert choose(24.0) == [(0, 1)]
    assert choose(24.0 + 34.0) == [(0, 1), (1, 0)]
    assert choose(24.0 + 2 * 34.0) == [(0, 1), (1, 0), (2, 0)]
    assert choose(24.0 + 2 * 34.0 + 48.0) == [(0, 1), (1, 0), (2, 0), (0, 2), (0, 3)]
    assert choose(1000.0)[-2:] == [(1, 3), (2, 3)]


def test_a_group_that_is_not_started_has_to_start_first() -> None:
    assert choose(24.0, running=1) == [(1, 0), (1, 1)]
    assert choose(24.0 + 24.0, running=1)[0] == (0, 1)


def test_what_does_not_fit_leaves_room_for_what_does() -> None:
    assert choose(20.0, running=1) == [(1, 0)]


def test_a_group_is_finished_before_the_next_one_starts() -> None:
    chosen = [Unit(0, 1, (ONE,)), Unit(1, 0, (ONE,)), Unit(0, 2, (ONE,)), Unit(2, 0, (ONE,))]
    assert next_unit(chosen, running=0) == chosen[0]
    assert next_unit(chosen[1:], running=0) == chosen[2]
    assert next_unit(chosen[1:], running=2) == chosen[3]
    assert next_unit([chosen[3], chosen[1]], running=None) == chosen[1]
    assert next_unit([], running=0) is None


def test_a_round_of_which_one_system_has_no_record_is_measured_again() -> None:
    recorded = [measured("stock", 1.0, "0C/0L"), measured("swiftdiff", 1.0, "0C/0L")]
    recorded.append(measured("stock", 1.0, "1C/1L"))
    recorded.append(measured("all-off", 1.0, "0C/0L", "warmup"))
    assert pending_units(GROUPS[:2], 1, recorded) == [Unit(0, 0, (ONE,)), Unit(1, 0, (PLAIN, ONE))]


def test_what_is_left_is_said_by_the_repeats_that_each_system_lacks() -> None:
    units = [
        Unit(0, 3, (ONE,)),
        Unit(1, 2, (ONE,)),
        Unit(1, 3, (PLAIN,)),
        Unit(2, 2, (ONE,)),
        Unit(2, 3, (ONE,)),
    ]
    said = describe_cut(units, GROUPS, 4)
    assert said == "stock, swiftdiff lack 1 of 4 repeats; all-off, bal40 lack 2 of 4 repeats"
    assert describe_cut([], GROUPS, 4) == ""
