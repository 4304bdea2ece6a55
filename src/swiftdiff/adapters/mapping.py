"""Decides which of a store's adapters stands behind each adapter id of a trace."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from swiftdiff.adapters.mapping_file import MappingRule, Rule
from swiftdiff.adapters.measured_times import KINDS, AdapterKind
from swiftdiff.adapters.store import ADAPTER_ID, ADAPTER_NAMES
from swiftdiff.errors import AdapterError, ConfigError
from swiftdiff.request import ImageRequest, LoraUse
from swiftdiff.trace.foreign_ids import stable_choice
from swiftdiff.validation import StrictModel

Uses = Mapping[AdapterKind, Mapping[str, int]]
Known = Mapping[AdapterKind, Sequence[str]]

_SHOWN = 3  # ids that an error names before it counts the rest
_MERGED = "LoRAs of one request that meet on one id are merged, their scales added"
_NOTES = {
    "alias": "Each id that the store lacks has a file of its own in a generated local store: a link to the "
    "weights of one of the store's adapters, chosen by the id's SHA-256. It is loaded, cached and counted as "
    "an adapter of its own; the emulated distance is the store's. Remote files are fetched once, beforehand.",
    "popularity": "Ids that the store lacks, the most used first, go round its adapters in order of their "
    f"ids. {_MERGED}.",
    "hash": f"Ids that the store lacks are served as the adapter that their SHA-256 chooses. {_MERGED}.",
    "file": f"As the mapping file says. {_MERGED}.",
}


class MappedAdapter(StrictModel):
    """What became of one adapter id of the trace.

    Attributes:
        id: The id that is served and recorded.
        weights: The store's adapter behind it.
        uses: How often the trace names it.
    """

    id: str
    weights: str
    uses: int


class MappingCounts(StrictModel):
    """Distinct ids of one kind.

    Attributes:
        trace: In the trace.
        mapped: Of these, standing on another adapter's weights.
        renamed: Of these, served under another id, since theirs has characters that no store takes.
        served: Ids that are served: as many adapters can be loaded.
        weights: Adapters of the store that the mapped ones stand on.
    """

    trace: int
    mapped: int
    renamed: int
    served: int
    weights: int


class AdapterMapping(StrictModel):
    """All adapter ids of a trace and what they became: the file ``adapters.json`` of a run.

    Attributes:
        how: The rule.
        file: Name of the user's mapping file, or None.
        store: URL of the adapter store; empty if there is none.
        note: What the rule does.
        counts: Distinct ids, by kind.
        adapters: By kind, then by the trace's id.
    """

    format: Literal[1] = 1
    how: Rule | Literal["file"]
    file: str | None = None
    store: str
    note: str
    counts: dict[AdapterKind, MappingCounts]
    adapters: dict[AdapterKind, dict[str, MappedAdapter]]

    @property
    def sha256(self) -> str:
        """Names what is mapped to what: runs with the same one can be compared."""
        pairs = {
            kind: {foreign: (mapped.id, mapped.weights) for foreign, mapped in adapters.items()}
            for kind, adapters in self.adapters.items()
        }
        return hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()

    def describe(self) -> str:
        """Return what tables say of a run with this mapping."""
        how = self.how if self.file is None else self.file
        counts = [(ADAPTER_NAMES[kind], self.counts[kind]) for kind in reversed(KINDS)]
        mapped = " and ".join(f"{count.mapped} {name}" for name, count in counts if count.mapped)
        weights = " and ".join(str(count.weights) for _, count in counts if count.mapped)
        if not mapped:
            return f"{how}, nothing to map"
        if self.how == "alias":
            return (
                f"{how}, {mapped} ids each with a file of its own in a generated local store, "
                f"{weights} weight sets behind them"
            )
        return f"{how}, {mapped} ids onto {weights} of the store's; {_MERGED}"

    def apply(self, request: ImageRequest) -> ImageRequest:
        """Return a request of the trace as it is served.

        LoRAs that fall on one id become one with the sum of their scales: a sum of deltas is the same.
        """
        if not request.loras and not request.controlnets:
            return request
        loras: dict[str, LoraUse] = {}
        for use in request.loras:
            id_ = self.adapters["lora"][use.id].id
            scale = use.scale + (loras[id_].scale if id_ in loras else 0.0)
            loras[id_] = use.model_copy(update={"id": id_, "scale": scale})
        controlnets = tuple(
            use.model_copy(update={"id": self.adapters["controlnet"][use.id].id})
            for use in request.controlnets
        )
        return request.model_copy(update={"loras": tuple(loras.values()), "controlnets": controlnets})


def count_uses(requests: Iterable[ImageRequest]) -> Uses:
    """Return how often a trace names each adapter; memory grows with the distinct ids alone."""
    uses: dict[AdapterKind, Counter[str]] = {kind: Counter() for kind in KINDS}
    for request in requests:
        uses["controlnet"].update(use.id for use in request.controlnets)
        uses["lora"].update(use.id for use in request.loras)
    return uses


def map_adapters(rule: MappingRule, uses: Uses, known: Known, store: str) -> AdapterMapping:
    """Map a trace's adapters to a store's. Ids that the store has stay themselves, unless a file says else.

    Args:
        rule: How.
        uses: The trace's ids, see `count_uses`.
        known: Ids of the store's adapters, sorted; empty if it cannot be listed.
        store: Its URL, for errors and the record.

    Raises:
        AdapterError: The store has, or tells of, no adapter of a kind that the trace needs.
        ConfigError: The mapping file lacks ids of the trace, or names adapters that the store does not have.
    """
    adapters = {kind: _map_kind(rule, kind, uses[kind], known[kind], store) for kind in KINDS}
    return AdapterMapping(
        how=rule.how,
        file=rule.file_name,
        store=store,
        note=_NOTES[rule.how],
        counts={kind: _count(mapped) for kind, mapped in adapters.items()},
        adapters=adapters,
    )


def _map_kind(
    rule: MappingRule, kind: AdapterKind, uses: Mapping[str, int], known: Sequence[str], store: str
) -> dict[str, MappedAdapter]:
    own = set(known)
    given = rule.targets.get(kind, {})
    foreign = [id_ for id_ in uses if id_ not in own and id_ not in given]
    weights = {id_: given.get(id_, id_) for id_ in uses}
    if rule.how == "file":
        wanted = {weights[id_] for id_ in uses}
        unknown = wanted - own if known else set()  # a store that cannot be listed may have it
        _check_file(rule, ADAPTER_NAMES[kind], foreign, list(unknown), store)
    elif foreign and not known:
        raise AdapterError(
            f"{ADAPTER_NAMES[kind]}s of the trace, {_name_some(foreign)}, cannot be mapped: "
            f"{store or 'the model'} has none, or cannot be listed; set url under [adapters] in the config"
        )
    elif rule.how == "popularity":
        ranked = sorted(foreign, key=lambda id_: (-uses[id_], id_))
        weights |= {id_: known[rank % len(known)] for rank, id_ in enumerate(ranked)}
    else:
        weights |= {id_: stable_choice(id_, known) for id_ in foreign}
    return {
        id_: MappedAdapter(
            id=_servable(id_) if rule.how == "alias" else weights[id_], weights=weights[id_], uses=uses[id_]
        )
        for id_ in sorted(uses)
    }


def _check_file(
    rule: MappingRule, name: str, missing: Sequence[str], unknown: Sequence[str], store: str
) -> None:
    if missing:
        raise ConfigError(
            f"--adapters {rule.file_name} has no {name} {_name_some(missing)} of the trace, which the "
            "adapter store does not have either"
        )
    if unknown:
        raise ConfigError(
            f"--adapters {rule.file_name} names {name} {_name_some(unknown)}, but {store} does not have that"
        )


def _servable(foreign_id: str) -> str:
    """Return the id itself, or one that a store takes and that no other id gets."""
    if ADAPTER_ID.fullmatch(foreign_id):
        return foreign_id
    readable = re.sub(r"[^A-Za-z0-9._-]", "_", foreign_id)[:100].lstrip(".-") or "adapter"
    return f"{readable}-{hashlib.sha256(foreign_id.encode()).hexdigest()[:12]}"


def _count(mapped: Mapping[str, MappedAdapter]) -> MappingCounts:
    elsewhere = {id_: each for id_, each in mapped.items() if each.weights != id_}
    return MappingCounts(
        trace=len(mapped),
        mapped=len(elsewhere),
        renamed=sum(each.id not in (id_, each.weights) for id_, each in mapped.items()),
        served=len({each.id for each in mapped.values()}),
        weights=len({each.weights for each in elsewhere.values()}),
    )


def _name_some(ids: Sequence[str]) -> str:
    some = ", ".join(repr(id_ if len(id_) <= 60 else id_[:57] + "...") for id_ in sorted(ids)[:_SHOWN])
    return some + (f" and {len(ids) - _SHOWN} more" if len(ids) > _SHOWN else "")
