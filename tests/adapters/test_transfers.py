"""Checks what carries bytes to GPUs as far as a CPU can; see also tests/gpu."""

from __future__ import annotations

import threading

import pytest
import torch

from swiftdiff.adapters.transfers import HostArena, StagedCopies, beside, side_stream

CPU = torch.device("cpu")


def samples() -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(5, 7),
        torch.randn(40, 11).to(torch.bfloat16),
        torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last),
        torch.randn(9, 9)[2:7],
        torch.randn(6, 8).t(),  # not dense in the order that is copied by pieces
        torch.tensor(3.0),
        torch.zeros(0, 4),
    ]


@pytest.mark.parametrize("num_bytes", [16, 100, 2**20])
def test_copies_by_pieces_are_whole_whatever_the_type_and_the_layout(num_bytes: int) -> None:
    copies = StagedCopies(CPU, num_bytes=num_bytes)
    for source in samples():
        copy = copies.copy(source)
        assert torch.equal(copy, source)
        assert copy.stride() == source.stride()
        assert source.numel() == 0 or copy.data_ptr() != source.data_ptr()
    copies.wait()


def test_threads_that_share_the_buffers_get_their_own_tensors() -> None:
    copies = StagedCopies(CPU, num_bytes=64)
    wrong: list[int] = []

    def run(number: int) -> None:
        for turn in range(20):
            source = torch.full((50,), float(number * 100 + turn))
            if not torch.equal(copies.copy(source), source):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_arena_gives_memory_of_every_shape_and_none_twice() -> None:
    arena = HostArena(is_pinned=False, num_bytes=4096)
    sources = [*samples()[:3], torch.randn(1000)]
    with torch.inference_mode():  # who patches first may be in it, who restores not
        places = [arena.like(source) for source in sources]
    for place, source in zip(places, sources, strict=True):
        place.copy_(source)
    for place, source in zip(places, sources, strict=True):
        assert torch.equal(place, source)
        assert place.stride() == source.stride()
    pieces = {place.untyped_storage().data_ptr() for place in places}
    assert len(pieces) == 2  # the last one does not fit beside the others


def test_a_cpu_has_no_side_streams() -> None:
    assert side_stream(CPU, "copy") is None
    with beside(CPU, "patch"):
        pass
