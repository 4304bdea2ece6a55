from __future__ import annotations

import itertools

from fakes import make_request

from swiftdiff.engine.arrivals import Arrival
from swiftdiff.engine.clock import FakeClock
from swiftdiff.engine.queue import MAX_HELD, ClosedQueue, OpenQueue


def _open_queue(times: list[float], clock: FakeClock) -> OpenQueue:
    return OpenQueue(iter([Arrival(t, make_request(f"r{i}")) for i, t in enumerate(times)]), clock)


def test_an_idle_server_sleeps_until_the_next_arrival() -> None:
    clock = FakeClock()
    queue = _open_queue([2.0], clock)
    arrival = queue.take()
    assert arrival is not None
    assert (arrival.at_s, clock.now()) == (2.0, 2.0)
    assert queue.take() is None


def test_requests_that_arrived_while_the_server_was_busy_wait_in_order() -> None:
    clock = FakeClock()
    queue = _open_queue([0.0, 0.1, 0.2, 9.0], clock)
    queue.take()
    clock.sleep(1.0)
    assert queue.waiting() == 2
    taken = [queue.take(), queue.take()]
    assert [each.request.request_id for each in taken if each] == ["r1", "r2"]
    assert clock.now() == 1.0


def test_a_flood_of_requests_is_not_held_in_memory() -> None:
    read = itertools.count()
    flood = (Arrival(0.0, make_request(f"r{next(read)}")) for _ in range(100_000))
    queue = OpenQueue(flood, FakeClock())
    assert queue.waiting() == MAX_HELD
    assert next(read) <= MAX_HELD + 2


def test_in_a_closed_loop_the_next_request_arrives_when_one_finishes() -> None:
    clock = FakeClock()
    queue = ClosedQueue((make_request(f"r{i}") for i in range(4)), 2, clock)
    arrivals = []
    while (arrival := queue.take()) is not None:
        arrivals.append(arrival.at_s)
        clock.sleep(1.0)
        queue.release(clock.now())
    assert arrivals == [0.0, 0.0, 1.0, 2.0]
