"""Blocks on the host, fetched layer by layer."""

from __future__ import annotations

import pytest
import torch

from swiftdiff.world.host_blocks import HostBlocks

LAYERS = 5


def make_blocks(device: str) -> HostBlocks:
    blocks = HostBlocks(LAYERS, [(4, 2, 3), (4, 2)], [torch.float32, torch.int8], torch.device(device))
    for kind, tensor in enumerate(blocks.tensors):
        for layer in range(LAYERS):
            tensor[layer] = 10 * kind + layer
    return blocks


def test_every_layer_arrives_and_the_next_is_on_its_way() -> None:
    blocks = make_blocks("cpu")
    for num_slots in (2, 4):
        blocks.begin(num_slots)
        for layer in range(LAYERS):
            numbers, packed = blocks.take(layer)
            assert numbers.shape == (num_slots, 2, 3)
            assert (numbers == layer).all()
            assert (packed == 10 + layer).all()
            if layer + 1 < LAYERS:
                following = blocks.buffers[(layer + 1) % 2]
                assert (following[0][:num_slots] == layer + 1).all(), "the next layer was not fetched ahead"
            blocks.release(layer)


def test_a_new_pass_sees_what_was_written_since() -> None:
    blocks = make_blocks("cpu")
    blocks.begin(1)
    blocks.take(0)
    blocks.tensors[0][0] = 99
    blocks.begin(1)
    assert (blocks.take(0)[0] == 99).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_layers_arrive_through_pinned_memory() -> None:
    blocks = make_blocks("cuda")
    assert all(tensor.is_pinned() for tensor in blocks.tensors)
    blocks.begin(3)
    for layer in range(LAYERS):
        numbers, packed = blocks.take(layer)
        numbers, packed = numbers.clone(), packed.clone()
        blocks.release(layer)
        assert (numbers == layer).all()
        assert (packed == 10 + layer).all()
