"""Worker processes for training: one runs in the caller, the others are spawned and end with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
from torch import distributed, multiprocessing

from swiftdiff.errors import ModelError

Job = Callable[[int], None]
Store = Any  # torch.distributed.TCPStore, which torch's types do not export


def run_workers(job: Job, workers: int, leader: Job | None = None) -> None:
    """Run `job(rank)` in `workers` processes joined by gloo; `job` must pickle.

    Rank 0 runs in this process, and runs `leader` if given. Each process computes on one thread when
    there are several. When another rank dies in the middle, rank 0's next all-reduce raises.

    Raises:
        ModelError: A worker ended before it joined.
    """
    if workers == 1:
        (leader or job)(0)
        return
    store: Store = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, workers, is_master=True, wait_for_workers=False
    )
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_join_from_afar, args=(job, rank, workers, store.port), daemon=True)
        for rank in range(1, workers)
    ]
    for process in others:
        process.start()
    try:
        _wait_until_joined(store, others)
        _join(leader or job, 0, workers, store)
        for process in others:
            process.join()
    finally:
        for process in others:
            process.terminate()


def _wait_until_joined(store: Store, others: Sequence[SpawnProcess]) -> None:
    while not all(store.check([f"joined-{rank}"]) for rank in range(1, len(others) + 1)):
        dead = [process for process in others if not process.is_alive()]
        if dead:
            raise ModelError(f"a training worker ended with exit code {dead[0].exitcode} before it joined")
        time.sleep(0.05)


def _join_from_afar(job: Job, rank: int, workers: int, port: int) -> None:
    store: Store = distributed.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", port, workers, is_master=False
    )
    store.set(f"joined-{rank}", "yes")
    _join(job, rank, workers, store)


def _join(job: Job, rank: int, workers: int, store: Store) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=workers)
    try:
        job(rank)
    finally:
        distributed.destroy_process_group()
        torch.set_num_threads(before)
