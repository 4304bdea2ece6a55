"""Which waiting request is served next."""

from __future__ import annotations

from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.server.config import PolicyName
from swiftdiff.server.job import Job
from swiftdiff.server.policies import POLICIES
from swiftdiff.server.waiting_room import WaitingRoom


def job(name: str, lora: str | None = None, slo_ms: float | None = None, engine: str | None = None) -> Job:
    request = ImageRequest(
        request_id=name,
        timestamp=0,
        prompt="a cat",
        slo_ms=slo_ms,
        loras=() if lora is None else (LoraUse(id=lora),),
    )
    return Job(request, 0.0, 600.0, lambda event: None, engine=engine)  # type: ignore[arg-type]


def order(policy: PolicyName, jobs: list[Job], max_overtakes: int = 100) -> list[str]:
    room = WaitingRoom(100, POLICIES[policy], max_overtakes)
    for each in jobs:
        assert room.enter(each)
    foreseen = [request.request_id for request in room.upcoming(100)]
    taken = [each.request.request_id for _ in jobs if (each := room.take_now()) is not None]
    assert max_overtakes < 100 or foreseen == taken
    return taken


MIXED = [("a", "gold"), ("b", "neon"), ("c", "gold"), ("d", None), ("e", "neon"), ("f", "gold")]


def test_fifo_serves_by_arrival() -> None:
    assert order("fifo", [job(*each) for each in MIXED]) == list("abcdef")


def test_affinity_serves_equal_loras_in_a_row() -> None:
    assert order("adapter-affinity", [job(*each) for each in MIXED]) == list("dacfbe")


def test_affinity_does_not_let_the_oldest_wait_for_ever() -> None:
    jobs = [job("a", "gold"), job("old", "neon"), *(job(f"g{n}", "gold") for n in range(9))]
    assert order("adapter-affinity", jobs, max_overtakes=3).index("old") == 4


def test_edf_serves_what_is_due_first_and_ties_by_arrival() -> None:
    jobs = [job("late"), job("soon", slo_ms=100), job("sooner", slo_ms=50), job("later")]
    assert order("edf", jobs) == ["sooner", "soon", "late", "later"]


def test_a_room_takes_no_more_than_it_has_places_for_nor_anyone_once_closed() -> None:
    room = WaitingRoom(1, POLICIES["fifo"], 1)
    first = job("a")
    assert room.enter(first)
    assert not room.enter(job("b"))
    assert room.leave(first)
    assert not room.leave(first)
    assert room.enter(job("c"))
    room.close()
    assert not room.enter(job("d"))
    assert room.take() is not None
    assert room.take() is None


def test_nothing_is_prepared_past_a_request_of_another_system() -> None:
    room = WaitingRoom(9, POLICIES["fifo"], 1)
    for each in (job("a"), job("b", engine="diffusers"), job("c")):
        room.enter(each)
    assert [request.request_id for request in room.upcoming(9)] == ["a"]


def test_partial_pictures_are_spread_over_the_steps() -> None:
    for wanted, num_steps, expected in (
        (3, 20, [5, 10, 15]),
        (1, 2, [1]),
        (100, 5, [1, 2, 3, 4]),
        (0, 9, []),
        (2, 1, []),
    ):
        one = job("a")
        one.num_partials = wanted
        due = {step: one.partial_index(step, num_steps) for step in range(num_steps)}
        assert [step for step, index in due.items() if index is not None] == expected
        assert [index for index in due.values() if index is not None] == list(range(len(expected)))
