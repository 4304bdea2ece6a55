"""Fits how recently and how often adapters were used before: bands of reuse distances, and their preference.

New adapters are uses whose distance is longer than the list of those known. So the distribution of distances
is estimated from censored data (Kaplan and Meier, Nonparametric estimation from incomplete observations,
1958), which also says how new ones become rarer while the list grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from swiftdiff.trace.synthesis.locality import Locality
from swiftdiff.trace.synthesis.observations import Floats, Uses
from swiftdiff.trace.synthesis.streams import stream

_POWERS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_TOPS = (1, 3, 10, 30, 100, 300)
_SIMULATED_USES = 20_000
_SIMULATIONS = 3


def fit_locality(requests: Uses, prefix: str) -> Locality | None:
    """Return what makes adapters recur as they do in requests, or None if no adapter does.

    Args:
        requests: Ids that each request names, without repeats, in order of arrival.
        prefix: Begins the names of made-up adapters.
    """
    distances, known = reuse_distances(requests)
    if not distances.any():
        return None
    below = distribution(distances, known)
    ends = _band_ends(len(below) - 1)
    weights = np.diff(below[[0, *ends]], append=1.0)
    fitted = [
        Locality(
            prefix=prefix,
            distances=tuple(ends),
            weights=tuple(round(max(float(weight), 0.0), 5) for weight in weights),
            popularity=power,
        )
        for power in _POWERS
    ]
    return min(fitted, key=lambda locality: _popularity_error(locality, requests))


def reuse_distances(requests: Uses) -> tuple[np.ndarray, np.ndarray]:
    """Return each use's reuse distance, 0 for a new adapter, and how long the list of others was.

    The list has the adapters known so far without those that the request has named before, last used first.
    """
    recent: list[str] = []  # last used comes last, where lists are quick
    distances, known = [], []
    seen: set[str] = set()
    for request in requests:
        for already, name in enumerate(request):
            others = len(recent) - already
            distance = 0
            if name in seen:
                place = next(at for at in range(others - 1, -1, -1) if recent[at] == name)
                distance = others - place
                recent.pop(place)
            seen.add(name)
            recent.append(name)
            distances.append(distance)
            known.append(others)
    return np.array(distances, dtype=int), np.array(known, dtype=int)


def distribution(distances: np.ndarray, known: np.ndarray) -> Floats:
    """Return the share of uses with a distance up to 0, 1, ... the longest one, by Kaplan and Meier."""
    longest = int(distances.max())
    reused = np.bincount(distances[distances > 0], minlength=longest + 1)
    censored = np.bincount(np.minimum(known[distances == 0], longest), minlength=longest + 1)
    at_risk = np.cumsum((reused + censored)[::-1])[::-1]  # uses whose list was that long, or distance
    hazards = reused[1:] / np.maximum(at_risk[1:], 1)
    below: Floats = np.concatenate([[0.0], 1 - np.cumprod(1 - hazards)])
    return below


def top_shares(names: Sequence[str]) -> Floats:
    """Return the shares of uses that go to the most used adapters: 1, 3, 10, 30, 100, 300 of them."""
    counts = np.sort(list(Counter(names).values()))[::-1]
    shares: Floats = np.array([counts[:top].sum() for top in _TOPS]) / max(len(names), 1)
    return shares


def _band_ends(longest: int) -> list[int]:
    """Return 1, 2, 3, 5, 8, ... and the longest distance."""
    ends, following = [1], 2
    while ends[-1] < longest:
        ends.append(min(following, longest))
        following = ends[-1] + ends[-2]
    return ends


def _popularity_error(locality: Locality, requests: Uses) -> float:
    """Return how far made-up popularity is from the real one, over the first uses of both."""
    real: list[str] = []
    numbers: list[int] = []
    for request in requests:
        if len(real) >= _SIMULATED_USES:
            break
        real.extend(request)
        numbers.append(len(request))
    errors = []
    for seed in range(_SIMULATIONS):
        picker = locality.picker(stream(seed, "fit"))
        made = [name for number in numbers if number for name in picker.pick(number)]
        errors.append(np.abs(top_shares(made) - top_shares(real)).sum())
    return float(np.mean(errors))
