from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from swiftdiff.world.loading import EmbeddedPrompts, WorldModel
from swiftdiff.world.proposals import propose


def test_a_bounce_world_proposes_scenes_that_it_understands_and_its_actions(
    tiny_world: Callable[[int], WorldModel],
) -> None:
    world = tiny_world(0)
    proposals = [propose(world) for _ in range(5)]
    assert len({proposal.example for proposal in proposals}) > 1
    for text in (proposals[0].example, *proposals[0].actions):
        world.prompts.encode(text)
    assert "push left" in proposals[0].actions
    assert proposals[0].prompts == ()


def test_a_world_of_embeddings_proposes_what_its_file_has(tiny_world: Callable[[int], WorldModel]) -> None:
    features = torch.ones(4, 32)
    prompts = EmbeddedPrompts({"": features, "a dog": features, "a cat": features})
    proposal = propose(replace(tiny_world(0), prompts=prompts))
    assert proposal.prompts == ("a cat", "a dog")
    assert proposal.example in proposal.prompts
    assert proposal.actions == ()
