from __future__ import annotations

import pytest
import torch

from swiftdiff.errors import ConfigError, RequestError
from swiftdiff.world.steering import Steering


def encode(text: str) -> torch.Tensor:
    if text.startswith("unknown"):
        raise RequestError(f"no action {text!r}")
    return torch.zeros(1, 1, 1)


def texts(steering: Steering, num_blocks: int) -> list[str]:
    return [steering.take().text for _ in range(num_blocks)]


def test_a_prompt_lasts_and_an_action_rests() -> None:
    assert texts(Steering(encode, "a cat", None), 3) == ["a cat"] * 3
    assert texts(Steering(encode, "a ball", "none"), 3) == ["a ball", "none", "none"]


def test_a_lasting_prompt_stays_and_a_passing_one_goes_back() -> None:
    steering = Steering(encode, "a cat", None)
    texts(steering, 1)
    steering.steer("a dog")
    assert texts(steering, 2) == ["a dog", "a dog"]
    steering.steer("a bird", blocks=2)
    assert texts(steering, 4) == ["a bird", "a bird", "a dog", "a dog"]


def test_the_first_block_keeps_its_prompt_whatever_is_asked_before() -> None:
    steering = Steering(encode, "a ball", "none")
    steering.steer("push left", blocks=1)
    assert texts(steering, 3) == ["a ball", "push left", "none"]


def test_what_was_asked_last_counts() -> None:
    steering = Steering(encode, "a cat", None)
    texts(steering, 1)
    steering.steer("a bird", blocks=3)
    steering.steer("a fish", blocks=1)
    assert texts(steering, 2) == ["a fish", "a cat"]
    steering.steer("a bird", blocks=3)
    steering.steer("a dog")
    assert texts(steering, 2) == ["a dog", "a dog"]


def test_what_means_nothing_changes_nothing() -> None:
    steering = Steering(encode, "a cat", None)
    with pytest.raises(RequestError, match="no action"):
        steering.steer("unknown")
    with pytest.raises(ConfigError, match="blocks is 0"):
        steering.steer("a dog", blocks=0)
    assert texts(steering, 2) == ["a cat", "a cat"]


def test_only_what_was_asked_for_to_stay_is_lasting() -> None:
    steering = Steering(encode, "a ball", "none")
    assert [steering.take().is_lasting for _ in range(2)] == [False, False]
    steering.steer("push left", blocks=1)
    assert not steering.take().is_lasting
    steering.steer("push left")
    assert steering.take().is_lasting


def test_the_model_is_told_more_than_the_user_asks_for() -> None:
    told: list[str] = []

    def encode_and_note(text: str) -> torch.Tensor:
        told.append(text)
        return torch.zeros(1, 1, 1)

    def follow(before: str, asked: str) -> str:
        return f"{asked} after {before.split(maxsplit=1)[0]}"

    steering = Steering(encode_and_note, "a ball", "none", follow)
    steering.steer("push", blocks=1)
    made = [steering.take() for _ in range(4)]
    assert [prompt.text for prompt in made] == ["a ball", "push", "none", "none"]
    whole = ["a ball", "push after a", "none after push", "none after none"]
    assert [prompt.whole for prompt in made] == whole
    assert told[-3:] == whole[1:]
    assert made[2].asked == made[3].asked != made[1].asked
