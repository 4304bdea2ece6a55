from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swiftdiff.world.tracing import trace


class Cast(nn.Module):
    """A linear layer between casts, as diffusers writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5)

    def forward(self, states: Tensor) -> Tensor:
        exact = self.linear(states.float())
        hidden: Tensor = self.dropout(exact.view(states.shape[0], -1)).type_as(states)
        return F.silu(hidden)


def casts(graph: Any) -> list[str]:
    kinds = [node.kind() for node in graph.graph.nodes()]
    return [kind for kind in kinds if kind in ("aten::to", "aten::type_as", "aten::size", "aten::dropout")]


def test_a_graph_computes_the_same_bits_without_casts_that_change_nothing() -> None:
    module, states = Cast().eval().requires_grad_(False), torch.randn(3, 4)
    graph = trace(module, (states,))
    assert casts(graph) == []
    for given in (states, torch.randn(3, 4)):
        assert torch.equal(graph(given), module(given))


def test_casts_that_change_something_stay() -> None:
    module, states = Cast().eval().requires_grad_(False), torch.randn(3, 4, dtype=torch.bfloat16)
    graph = trace(module, (states,))
    assert len(casts(graph)) == 2
    assert graph(states).dtype == torch.bfloat16
    assert torch.equal(graph(states), module(states))


def test_a_graph_writes_to_its_arguments_as_the_module_does() -> None:
    class Write(nn.Module):
        def forward(self, target: Tensor, states: Tensor) -> Tensor:
            target.copy_(states.float() * 2)
            return states

    graph = trace(Write().eval(), (torch.zeros(2), torch.ones(2)))
    target = torch.zeros(4)
    graph(target[1:3], torch.tensor([3.0, 4.0]))
    assert target.tolist() == [0, 6, 8, 0]
