"""Decides how many waiting requests are denoised as one: as many as its own measurements say is fastest.

Every service is measured, for requests of one kind apart. A batch of a size that was not measured yet is
tried, a few times for each kind; from then on that size is used where a picture takes less time in it than in
fewer. So the price of learning is a handful of batches; the first captures graphs and is not counted.
"""

from __future__ import annotations

import math
import statistics
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import NamedTuple

from swiftdiff.engine.clock import Clock
from swiftdiff.server.job import Job
from swiftdiff.systems.batch_key import batch_key

UNCOUNTED = 1  # services of a size that capture its graphs
NEEDED = 3  # measurements before one number of pictures is compared with another
KEPT = 9  # measurements of which the median counts
WORTH_IT = 0.95  # of the seconds a picture takes in a smaller batch; what is above is chance
DOUBTED_AFTER = 50  # times that a size was turned down, until it is tried once more
MAX_KINDS = 100  # whose measurements are kept: clients choose sizes and steps


class Kind(NamedTuple):
    """What requests have in common whose times are compared.

    Attributes:
        size: Width and height in pixels, as in ``128x128``.
        steps: Denoising steps.
        guided: Whether there are two halves of guidance.
        controlnets: How many.
        loras: How many.
        switches: The requests' own, as JSON; empty without.
    """

    size: str
    steps: int
    guided: bool
    controlnets: int
    loras: int
    switches: str


class Measured(NamedTuple):
    """How long a picture takes among so many, in the median of the last services."""

    kind: Kind
    pictures: int
    seconds: float


class BatchPlanner:
    """Chooses and measures batches. One thread chooses and notes; any may ask what was measured.

    Sizes count pictures, for a request may ask for several. Only powers of two and ``max_batch`` itself are
    used, since each size has graphs of its own.

    Args:
        max_batch: Pictures in a batch at most; 1 makes none.
        native_side: Of a picture whose request names no size, in pixels.
        clock: The server's, which deadlines go by.
    """

    def __init__(self, max_batch: int, native_side: int, clock: Clock) -> None:
        self._max_batch = max_batch
        self._native_side = native_side
        self._clock = clock
        self._kinds: OrderedDict[Kind, dict[int, _Times]] = OrderedDict()
        self._lock = threading.Lock()

    def find_alike(self, job: Job, waiting: Sequence[Job]) -> list[Job]:
        """Return those of the waiting jobs that may be in one batch with another, in their order."""
        if self._max_batch < 2 or job.engine is not None:
            return []
        wanted = batch_key(job.request, self._native_side)
        return [
            other
            for other in waiting
            if other.engine is None
            and other.switches == job.switches
            and batch_key(other.request, self._native_side) == wanted
        ]

    def choose(self, job: Job, alike: Sequence[Job]) -> int:
        """Return how many of the jobs that are like one should be served with it, the first ones.

        None is taken along that would make any of them come too late.
        """
        if not alike:
            return 0
        with self._lock:
            times = self._times_of(job)
            pictures = job.request.num_images
            best, best_s = 0, _median(times, pictures)
            if best_s is None:  # there is nothing to compare with yet
                return 0
            left_s = job.wanted_by_s - self._clock.now()
            for count, other in enumerate(alike, start=1):
                pictures += other.request.num_images
                left_s = min(left_s, other.wanted_by_s - self._clock.now())
                if pictures > self._max_batch or pictures * best_s > left_s:
                    break
                if pictures.bit_count() > 1 and pictures != self._max_batch:
                    continue
                seconds = _median(times, pictures)
                if seconds is None:
                    return count
                if seconds > WORTH_IT * best_s:
                    times[pictures].turn_down()
                    break
                best, best_s = count, seconds
            return best

    def note(self, jobs: Sequence[Job], seconds: float) -> None:
        """Learn how long it took to serve jobs together, loads and previews apart."""
        pictures = sum(job.request.num_images for job in jobs)
        with self._lock:
            self._times_of(jobs[0]).setdefault(pictures, _Times()).add(seconds / pictures)

    def note_failure(self, jobs: Sequence[Job]) -> None:
        """Learn that so many pictures cannot be made together: their kind is not tried in this size again."""
        pictures = sum(job.request.num_images for job in jobs)
        with self._lock:
            self._times_of(jobs[0]).setdefault(pictures, _Times()).forbid()

    def measured(self) -> list[Measured]:
        """Return what is known by now."""
        with self._lock:
            return [
                Measured(kind, pictures, seconds)
                for kind, times in self._kinds.items()
                for pictures in sorted(times)
                if (seconds := _median(times, pictures)) is not None
            ]

    def _times_of(self, job: Job) -> dict[int, _Times]:
        kind = self._kind_of(job)
        times = self._kinds.setdefault(kind, {})
        self._kinds.move_to_end(kind)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return times

    def _kind_of(self, job: Job) -> Kind:
        request, switches = job.request, job.switches
        return Kind(
            size=f"{request.width or self._native_side}x{request.height or self._native_side}",
            steps=request.num_inference_steps,
            guided=request.guidance_scale > 1,
            controlnets=len(request.controlnets),
            loras=len(request.loras),
            switches="" if switches is None else switches.model_dump_json(exclude_none=True),
        )


class _Times:
    """Seconds per picture of services with one number of pictures."""

    def __init__(self) -> None:
        self._uncounted = UNCOUNTED
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._turned_down = 0

    @property
    def median(self) -> float | None:
        """What counts; None while too few are known."""
        return statistics.median(self._seconds) if len(self._seconds) >= NEEDED else None

    def add(self, seconds: float) -> None:
        """Take a measurement."""
        if self._uncounted:
            self._uncounted -= 1
        else:
            self._seconds.append(seconds)

    def turn_down(self) -> None:
        """Note that it was too slow; after a while that is doubted, for it may have been a bad moment."""
        self._turned_down += 1
        if self._turned_down >= DOUBTED_AFTER and math.isfinite(self._seconds[-1]):
            self._turned_down = 0
            while len(self._seconds) >= NEEDED:
                self._seconds.popleft()

    def forbid(self) -> None:
        """Never come back to it."""
        self._seconds.extend([math.inf] * KEPT)


def _median(times: dict[int, _Times], pictures: int) -> float | None:
    known = times.get(pictures)
    return None if known is None else known.median
