"""Worker processes for training: one runs in the caller, the others are spawned and end with it."""

from __future__ import annotations

import socket
from collections.abc import Callable

import torch
from torch import distributed, multiprocessing

Job = Callable[[int], None]


def run_workers(job: Job, workers: int, leader: Job | None = None) -> None:
    """Run `job(rank)` in `workers` processes joined by gloo; `job` must pickle.

    Rank 0 runs in this process, and runs `leader` if given.

    Each process computes on one thread when there are several. An exception in rank 0 is raised here; when
    another rank dies, rank 0's next all-reduce fails and raises.
    """
    if workers == 1:
        (leader or job)(0)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_joined, args=(job, rank, workers, address), daemon=True)
        for rank in range(1, workers)
    ]
    for process in others:
        process.start()
    try:
        _joined(leader or job, 0, workers, address)
        for process in others:
            process.join()
    finally:
        for process in others:
            process.terminate()


def _joined(job: Job, rank: int, workers: int, address: str) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=workers)
    try:
        job(rank)
    finally:
        distributed.destroy_process_group()
        torch.set_num_threads(before)
