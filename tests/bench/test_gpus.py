"""Tests of what nvidia-smi is asked and how its answers are read, with a program of that name."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.bench.gpus import (
    ClockLog,
    describe_use_by_others,
    gpu_slug,
    query_gpus,
    read_clocks,
    smallest_memory_bytes,
)

GPUS = """\
0, NVIDIA H100 80GB HBM3, 580.159.04, 81559, 4, 0, 1980, 2619, 700.00, 31, Disabled, Enabled
1, NVIDIA H100 80GB HBM3, 580.159.04, 81559, 40000, 97, 1980, 2619, 700.00, 60, [N/A], Enabled
"""
LOG = """\
2026/11/23 07:00:00.000, 0, 345, 2619, 31, 70.10, 0
2026/11/23 07:00:00.500, 0, 1980, 2619, 50, 650.20, 100
2026/11/23 07:00:01.000, 0, 1755, 2619, 66, 699.90, 99
2026/11/23 07:00:01.500, 0, 1900, 2619, [N/A], [N/A], 80
2026/11/23 07:00:02.000, 0, 19"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")


def test_each_gpu_is_described_by_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, f"cat <<'END'\n{GPUS}END")
    first, second = query_gpus()
    assert (first["name"], first["driver_version"]) == ("NVIDIA H100 80GB HBM3", "580.159.04")
    assert (first["clocks.max.sm"], second["index"]) == ("1980", "1")
    assert describe_use_by_others([first]) == ""
    assert smallest_memory_bytes([first, second | {"memory.total": "24564"}]) == 24564 * 2**20
    assert smallest_memory_bytes([]) is smallest_memory_bytes([first | {"memory.total": "[N/A]"}]) is None
    assert describe_use_by_others([first, second]) == "GPU 1 had 40000 MiB in use and was 97 % busy"


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "printf '\\377'"])
def test_a_driver_that_does_not_answer_leaves_gpus_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    install(tmp_path, monkeypatch, script)
    assert query_gpus() == []


def test_without_the_program_nothing_is_known_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert query_gpus() == []
    with ClockLog(tmp_path / "clocks-1.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_clocks_count_while_the_gpu_is_busy_and_a_line_that_was_cut_off_does_not(tmp_path: Path) -> None:
    log = tmp_path / "clocks-1.csv"
    log.write_text(LOG)
    clocks = read_clocks([log])
    assert clocks is not None
    assert (clocks.median_mhz, clocks.low_mhz, clocks.high_mhz) == (1900, 1755, 1980)
    assert (clocks.max_celsius, clocks.max_watts, clocks.samples) == (66, 699.9, 3)
    log.write_text(LOG.splitlines()[0])
    assert read_clocks([log]) is None
    assert read_clocks([]) is None


def test_the_log_is_what_the_program_writes_until_it_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f"case $* in *loop-ms*) cat <<'END'\n{LOG}\nEND\nesac")
    path = tmp_path / "clocks-1.csv"
    with ClockLog(path) as log:
        assert log._process is not None
        log._process.wait()
    assert path.read_text() == LOG + "\n"
    install_again = tmp_path / "bin" / "nvidia-smi"
    install_again.write_text("#!/bin/sh\nexec sleep 600\n")
    with ClockLog(path) as log:
        process = log._process
    assert process is not None
    assert process.poll() is not None


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-80gb-hbm3"),
        ("NVIDIA GeForce RTX 4090", "geforce-rtx-4090"),
        ("", "gpu"),
    ],
)
def test_folders_are_named_after_the_gpu(name: str, slug: str) -> None:
    assert gpu_slug(name) == slug
