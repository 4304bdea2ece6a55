"""When adapters load, when weights are patched, and that nothing stays claimed."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from patience import PATIENCE_S
from serving import (
    PLAIN,
    SwiftdiffSystem,
    are_equal,
    engine,
    largest_difference,
    replay,
    request,
    serve,
    weights_of,
    with_adapters,
)

from swiftdiff.adapters import patcher
from swiftdiff.adapters.bal import ArrivingLoras
from swiftdiff.adapters.residency import AdapterCache
from swiftdiff.adapters.store import AdapterStore, FetchedAdapter, StoreUnavailableError
from swiftdiff.errors import AdapterError, RequestError
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.request import ControlNetUse, ImageRequest, LoraUse
from swiftdiff.systems.served_model import ServedModel

KEEP_NOTHING = {"lora_cache_mb": 0.0, "controlnet_cache_mb": 0.0}


@dataclass
class WatchedStore:
    """Notes what is fetched from any store, and can hold it up."""

    fetched: list[str] = field(default_factory=list)
    begun: dict[str, threading.Event] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def begins(self, adapter_id: str) -> threading.Event:
        """Set when the adapter's fetch begins."""
        return self.begun.setdefault(adapter_id, threading.Event())

    def hold(self, adapter_id: str) -> threading.Event:
        """Let the adapter's fetch go on only when the event is set."""
        return self.gates.setdefault(adapter_id, threading.Event())

    def enter(self, adapter_id: str) -> None:
        self.fetched.append(adapter_id)
        self.begins(adapter_id).set()
        if adapter_id in self.gates:
            wait_for(self.gates[adapter_id])


def wait_for(event: threading.Event) -> None:
    if not event.wait(PATIENCE_S):
        raise TimeoutError("what this waits for did not happen")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> WatchedStore:
    watched = WatchedStore()
    for name in ("fetch_lora", "fetch_controlnet"):
        fetch: Callable[..., FetchedAdapter] = getattr(AdapterStore, name)

        def watching(self: AdapterStore, adapter_id: str, fetch: Any = fetch) -> FetchedAdapter:
            watched.enter(adapter_id)
            result: FetchedAdapter = fetch(self, adapter_id)
            return result

        monkeypatch.setattr(AdapterStore, name, watching)
    return watched


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes each time that weights are written: ``patch`` or ``restore``."""
    noted: list[str] = []
    add, put_back = patcher.add_products, patcher.PristineWeights.put_back

    def noting_add(*arguments: Any) -> None:
        noted.append("patch")
        add(*arguments)

    def noting_put_back(self: patcher.PristineWeights, weights: Any) -> Any:
        restored = put_back(self, weights)
        noted.extend(["restore"] * bool(restored))
        return restored

    monkeypatch.setattr(patcher, "add_products", noting_add)
    monkeypatch.setattr(patcher.PristineWeights, "put_back", noting_put_back)
    return noted


def held_bytes(system: SwiftdiffSystem) -> int:
    """Bytes in the caches; of caches that keep nothing, those that somebody still claims."""
    return system._loras.stats.used_bytes + system._controlnets.stats.host.used_bytes


def loras(*names: str) -> tuple[LoraUse, ...]:
    return tuple(LoraUse(id=name) for name in names)


def test_the_same_loras_again_are_neither_taken_out_nor_patched_again(
    tiny_family: Path, controls: Path, writes: list[str]
) -> None:
    asked = [
        with_adapters(0, ("gold", "neon"), "first"),
        with_adapters(1, ("gold", "neon"), "same", prompt="w x y"),
        with_adapters(0, ("gold", "neon"), "again", seed=8),
    ]
    with engine(tiny_family, prefetch=True) as system:
        replay(system, asked[:1], controls)
        once = list(writes)
        assert "patch" in once
        assert once[-1] == "restore"
        writes.clear()
        together = replay(system, asked, controls)
        assert writes == once
    with engine(tiny_family) as system:
        writes.clear()
        apart = [serve(system, one, controls) for one in asked]
        assert writes == once * 3
    for outcome, pictures in zip(together, apart, strict=True):
        assert are_equal(outcome.pictures, pictures)


@pytest.mark.parametrize(
    "other", [loras("neon", "gold"), (LoraUse(id="gold", scale=0.5), LoraUse(id="neon")), loras("gold"), ()]
)
def test_other_loras_scales_or_orders_are_not_taken_for_the_same(
    tiny_family: Path, controls: Path, other: tuple[LoraUse, ...]
) -> None:
    asked = [request("first", loras=loras("gold", "neon")), request("other", loras=other)]
    with engine(tiny_family, prefetch=True) as system:
        together = replay(system, asked, controls)
        alone = serve(system, asked[1], controls)
    assert are_equal(together[1].pictures, alone)


def test_what_arrives_during_service_begins_to_load_and_its_prompt_is_encoded(
    tiny_family: Path, controls: Path, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = with_adapters(1, ("neon",), "second", prompt="w x y")
    waiting: list[ImageRequest] = []
    encoded: list[str] = []
    encode, denoise = ServedModel.encode, ServedModel.denoise
    states: list[tuple[str, bool, list[str]]] = []

    def noting_encode(self: ServedModel, one: ImageRequest) -> Any:
        encoded.append(one.request_id)
        return encode(self, one)

    def arriving(
        self: ServedModel,
        requests: list[ImageRequest],
        prompts: Any,
        controls: Any,
        before_step: Any = lambda step: None,
        **others: Any,
    ) -> Any:
        (one,) = requests

        def step_with_arrival(step: int) -> Any:
            if one.request_id == "first" and step == 1:
                waiting.append(second)
            change = before_step(step)
            if waiting and step == 2:
                wait_for(store.begins("neon"))
                wait_for(store.begins("edges"))
            states.append((one.request_id, bool(waiting), list(encoded)))
            return change

        return denoise(self, requests, prompts, controls, step_with_arrival, **others)

    monkeypatch.setattr(ServedModel, "encode", noting_encode)
    monkeypatch.setattr(ServedModel, "denoise", arriving)
    with engine(tiny_family, prefetch=True) as system:
        system.watch(lambda limit: waiting[:limit])
        system.serve(request("first", num_inference_steps=3), controls)
        system.finish()
        assert states == [
            ("first", False, ["first"]),
            ("first", True, ["first", "second"]),
            ("first", True, ["first", "second"]),
        ]
        served = system.serve(waiting.pop(), controls)
        system.finish()
        assert encoded == ["first", "second"]
    assert [(record.id, record.source) for record in served.adapters] == [
        ("edges", "store"),
        ("neon", "store"),
    ]
    assert sorted(store.fetched) == ["edges", "neon"]


def test_what_waits_loads_while_the_request_before_it_waits_for_its_own_loras(
    tiny_family: Path, controls: Path, store: WatchedStore
) -> None:
    gate = store.hold("gold")
    store.begun["neon"] = _Setting(gate)
    asked = [with_adapters(0, ("gold",), "first"), with_adapters(0, ("neon",), "second")]
    with engine(tiny_family, prefetch=True) as system:
        outcomes = replay(system, asked, controls)
    assert [outcome.error for outcome in outcomes] == [None, None]


class _Setting(threading.Event):
    """Sets another event too."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def set(self) -> None:
        super().set()
        self._other.set()


def test_without_prefetch_nothing_loads_before_its_request_is_served(
    tiny_family: Path, controls: Path, store: WatchedStore
) -> None:
    waiting = [with_adapters(1, ("neon",), "second")]
    with engine(tiny_family) as system:
        system.watch(lambda limit: waiting[:limit])
        system.serve(request("first"), controls)
        system.finish()
        assert store.fetched == []


def test_nothing_stays_claimed_after_success_failure_and_requests_that_went_away(
    tiny_family: Path, controls: Path
) -> None:
    good = with_adapters(2, ("gold", "neon"), "good")
    asked = [
        good,
        request("bad-lora", loras=loras("neon", "nobody"), controlnets=good.controlnets),
        request("bad-net", loras=loras("neon"), controlnets=(ControlNetUse(id="no", image="control.png"),)),
        request("bad-image", loras=loras("gold"), controlnets=(ControlNetUse(id="edges", image="none.png"),)),
    ]
    with engine(tiny_family, prefetch=True, **KEEP_NOTHING) as system:
        for one in asked:
            outcomes = replay(system, [one], controls)
            assert (outcomes[0].error is None) == (one is good)
            assert held_bytes(system) == 0, one.request_id
        waiting = [with_adapters(1, ("neon",), "impatient")]
        system.watch(lambda limit: waiting[:limit])
        system.serve(request("first"), controls)
        for load, _ in system._incoming._ahead["impatient"].loras:
            load.wait()
        for network in system._incoming._ahead["impatient"].controlnets:
            network.wait()
        system.finish()
        assert held_bytes(system) > 0
        waiting.clear()
        system.serve(request("next"), controls)
        system.finish()
        assert held_bytes(system) == 0


def test_closing_gives_up_what_loads_for_requests_that_are_never_served(
    tiny_family: Path, controls: Path, store: WatchedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[tuple[int, int]] = []
    clear = AdapterCache.clear

    def noting_clear(self: AdapterCache[Any]) -> None:
        left.append((len(self), self.stats.used_bytes))
        clear(self)

    monkeypatch.setattr(AdapterCache, "clear", noting_clear)
    gate = store.hold("gold")
    waiting = [with_adapters(2, ("neon",), "one"), with_adapters(0, ("gold",), "two")]
    with engine(tiny_family, prefetch=True, **KEEP_NOTHING) as system:
        system.watch(lambda limit: waiting[:limit])
        system.serve(request("first"), controls)
        system.finish()
        wait_for(store.begins("gold"))
        threading.Timer(0.05, gate.set).start()
    assert left == [(0, 0), (0, 0)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("swiftdiff-load")]


def test_a_long_queue_loads_for_its_first_requests_only(
    tiny_family: Path, controls: Path, store: WatchedStore
) -> None:
    waiting = [request(f"r{index}") for index in range(8)] + [with_adapters(0, ("neon",), "last")]
    with engine(tiny_family, prefetch=True) as system:
        system.watch(lambda limit: waiting[:limit])
        system.serve(request("first"), controls)
        system.finish()
        assert store.fetched == []


def test_a_waiting_request_that_cannot_be_served_does_not_disturb_the_one_before_it(
    tiny_family: Path, controls: Path
) -> None:
    wrong = request("wrong", num_inference_steps=0, width=60, num_images=0, loras=loras("nobody", "../gold"))
    with engine(tiny_family, prefetch=True, **KEEP_NOTHING) as system:
        alone = serve(system, request("first"), controls)
        waiting = [wrong]
        system.watch(lambda limit: waiting[:limit])
        served = system.serve(request("first"), controls)
        system.finish()
        assert isinstance(served.images, list)
        assert are_equal([np.asarray(image) for image in served.images], alone)
        waiting.clear()
        assert are_equal(serve(system, request("first"), controls), alone)


def test_without_a_store_a_request_with_adapters_fails_with_what_would_help(
    tiny_family: Path, controls: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(tiny_family / "base", tmp_path / "bare"))
    with engine(bare, prefetch=True) as system:
        for one, kind in (
            (with_adapters(0, ("gold",)), "LoRA 'gold'"),
            (with_adapters(1), "ControlNet 'edges'"),
        ):
            with pytest.raises(AdapterError, match=f"no {kind}: .* brings no adapters; set url under"):
                serve(system, one, controls)
        assert serve(system, request(), controls)


def test_a_store_that_does_not_answer_is_asked_again_and_then_fails_its_request(
    tiny_family: Path, controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = AdapterStore.fetch_lora
    failures = [2, 3]

    def failing(self: AdapterStore, adapter_id: str) -> FetchedAdapter:
        if failures[0]:
            failures[0] -= 1
            raise StoreUnavailableError("the store is away")
        return fetch(self, adapter_id)

    monkeypatch.setattr(AdapterStore, "fetch_lora", failing)
    with engine(tiny_family, load_attempts=3, **KEEP_NOTHING) as system:
        serve(system, with_adapters(0, ("gold",)), controls)
        failures[0] = 3
        with pytest.raises(AdapterError, match="the store is away"):
            serve(system, with_adapters(0, ("gold",)), controls)
        assert failures[0] == 0
        serve(system, with_adapters(0, ("gold",)), controls)


def test_latents_that_are_not_finite_fail_their_request_and_leave_the_base_untouched(
    tiny_family: Path, controls: Path
) -> None:
    with engine(tiny_family, prefetch=True, decode_lane="cpu:2") as system:
        before, alone = weights_of(system), serve(system, request(), controls)
        with pytest.raises(RequestError, match=r"request r: denoising ended in NaN or infinity"):
            serve(system, request(loras=(LoraUse(id="gold", scale=1e30),)), controls)
        after = weights_of(system)
        assert all(torch.equal(after[key], before[key]) for key in before)
        assert are_equal(serve(system, request(), controls), alone)


@pytest.mark.parametrize("lora", ["neon", "gold"])
def test_a_lora_that_is_late_by_k_steps_gives_stocks_picture_with_the_lora_from_step_k_on(
    tiny_family: Path, controls: Path, store: WatchedStore, monkeypatch: pytest.MonkeyPatch, lora: str
) -> None:
    """It arrives when step k waits for it, never before; ``gold`` changes the text encoders too."""
    one = with_adapters(0, (lora,), num_inference_steps=4)
    wait = ArrivingLoras._wait

    def opening_wait(self: ArrivingLoras) -> float:
        store.hold(lora).set()
        return wait(self)

    monkeypatch.setattr(ArrivingLoras, "_wait", opening_wait)
    on = dict.fromkeys(PLAIN, True) | {"graph_replay": False}  # tracing takes long
    with engine(tiny_family, **on) as system:
        pictures = [serve(system, one.model_copy(update={"loras": ()}), controls)]
    for bound, step in ((0, 0), (1, 1), ("50%", 2), (99, 3)):
        store.gates[lora] = threading.Event()
        with engine(tiny_family, **on, bal_k=bound) as system:
            assert system.exactness == ("approximate" if bound else "exact")
            (outcome,) = replay(system, [one], controls)
        assert outcome.error is None
        (record,) = outcome.served.adapters
        assert (record.id, record.source, record.step_patched) == (lora, "store", step)
        assert {"lora_wait", "lora_patch", "text_encode"} <= outcome.served.stages.keys()
        expected = draw_with_lora_from(step, one, tiny_family)
        assert largest_difference(outcome.pictures, expected) <= 1
        pictures.append(outcome.pictures)
    for some, others in combinations(pictures, 2):
        assert not are_equal(some, others)


def draw_with_lora_from(step: int, one: ImageRequest, family: Path) -> list[Any]:
    """Return stock's pictures with the LoRA loaded and fused, and the prompt encoded again, before a step."""
    (use,) = one.loras
    with quiet_libraries():
        pipe = StableDiffusionXLPipeline.from_pretrained(family / "base")
    pipe.set_progress_bar_config(disable=True)

    def load() -> None:
        pipe.load_lora_weights(
            str(family / "loras"), weight_name=f"{use.id}.safetensors", adapter_name="lora"
        )
        pipe.set_adapters(["lora"], [use.scale])
        pipe.fuse_lora(adapter_names=["lora"])

    def load_late(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index != step - 1:
            return {}
        load()
        prompt, negative, pooled, negative_pooled = pipe.encode_prompt(one.prompt)
        return {
            "prompt_embeds": torch.cat([negative, prompt]),
            "add_text_embeds": torch.cat([negative_pooled, pooled]),
        }

    if step == 0:
        load()
    with quiet_libraries(), torch.inference_mode():
        pictures = pipe(
            one.prompt,
            num_inference_steps=one.num_inference_steps,
            guidance_scale=one.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(one.seed)],
            callback_on_step_end=load_late,
        ).images
    return [np.asarray(picture) for picture in pictures]


def test_a_late_lora_that_fails_fails_its_request_at_the_bound_and_the_next_is_as_ever(
    tiny_family: Path, controls: Path
) -> None:
    asked = [request("bad", loras=loras("gold", "nobody"), num_inference_steps=4), request("next")]
    with engine(tiny_family, prefetch=True, bal_k=2) as system:
        before, alone = weights_of(system), serve(system, asked[1], controls)
        bad, after = replay(system, asked, controls)
        assert isinstance(bad.error, AdapterError)
        assert are_equal(after.pictures, alone)
        assert all(torch.equal(value, before[key]) for key, value in weights_of(system).items())
