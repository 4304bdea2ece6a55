from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from importing import imported, refusal, write

from swiftdiff.trace.importers.gentd26 import ADAPTER_FILES, ARRIVAL_FILES

REAL = Path(__file__).parents[4] / "shared" / "data" / "gentd26"
ADAPTERS = "data_trace_processed_first_half.csv"
ARRIVALS = "lora_request_trace.csv"
ADAPTER_HEADER = (
    "predict_type,exec_time_seconds,style_type,prompt_length,negative_prompt_length,num_images_per_prompt,"
    "num_inference_steps,checkpoint_model_version_id,lora_args"
)
ARRIVAL_HEADER = (
    "gmt_create,predict_type,predict_status,exec_time_seconds,groupId,prompt_length,negative_prompt_length,"
    "num_images_per_prompt,num_inference_steps,checkpoint_model_version_id,num_lora"
)
TEXT_TO_IMAGE = "e867a9754d73155e90d62f88dbedfc62"


def use(*loras: str, exec_s: str = "22.0", steps: str = "30.0", kind: str = TEXT_TO_IMAGE) -> str:
    listed = "[" + ", ".join(f"{{'modelVersionId': '{name}', 'scale': 0.8}}" for name in loras) + "]"
    return f'{kind},{exec_s},,54.0,,4.0,{steps},base1,"{listed}"'


def arrival(second: int, num_lora: int = 0, status: str = "SUCCEED", steps: str = "40.0") -> str:
    return f"2024-11-15 16:57:{second:02d},TXT_2_IMG,{status},32.0,G1,63.0,,1.0,{steps},M0000,{num_lora}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "gentd26"
    path.mkdir()
    adapters = [use("a"), use(exec_s="0.0", steps=""), use("b", "c"), use(), use("a", "d"), use("e")]
    arrivals = [arrival(0, 1), arrival(2, 0, "FAILED"), arrival(2), arrival(3, 2), arrival(9, 1)]
    write(path / f"{ADAPTERS}.gz", "\n".join([ADAPTER_HEADER, *adapters]))
    write(path / ARRIVALS, "\n".join([ARRIVAL_HEADER, *arrivals]) + "\n")
    return path


def test_a_folder_gives_whole_requests_at_the_arrivals_of_those_that_ran(folder: Path) -> None:
    requests, summary = imported("gentd26", folder)
    assert [r.timestamp for r in requests] == [0, 2000, 3000, 9000]
    assert [tuple(use.id for use in r.loras) for r in requests] == [("a",), ("b", "c"), (), ("a", "d")]
    assert {(r.num_inference_steps, r.num_images, r.loras[0].scale) for r in requests if r.loras} == {
        (30, 4, 0.8)
    }
    assert summary.provenance.dropped == {
        "adapters: beyond the last arrival": 1,
        "adapters: no execution time": 1,
        "arrivals: predict_status FAILED": 1,
    }
    assert "n-th arrival" in summary.provenance.filled_in["timestamp"]
    assert summary.provenance.filled_in["base_model"] == "left out: one base model serves all"
    assert [source.name for source in summary.provenance.sources] == [f"{ADAPTERS}.gz", ARRIVALS]


def test_joined_by_uses_each_arrival_keeps_its_steps_and_gets_as_many_loras_as_it_had(folder: Path) -> None:
    requests, summary = imported("gentd26", folder, join="uses")
    assert [tuple(use.id for use in r.loras) for r in requests] == [("a",), (), ("b", "c"), ("a",)]
    assert {(r.num_inference_steps, r.num_images) for r in requests} == {(40, 1)}
    assert summary.provenance.filled_in["loras"].endswith("(3 requests)")


def test_joined_by_uses_a_lora_twice_in_a_row_goes_to_two_requests(folder: Path) -> None:
    write(folder / f"{ADAPTERS}.gz", "\n".join([ADAPTER_HEADER, use("a"), use("b"), use("b"), use("c")]))
    requests, _ = imported("gentd26", folder, join="uses")
    assert [tuple(use.id for use in r.loras) for r in requests] == [("a",), (), ("b", "c"), ("b",)]


@pytest.mark.parametrize("join", ["rows", "uses"])
def test_arrivals_for_which_there_are_no_adapters_left_are_counted(folder: Path, join: str) -> None:
    write(folder / f"{ADAPTERS}.gz", f"{ADAPTER_HEADER}\n{use('a')}\n")
    requests, summary = imported("gentd26", folder, join=join)
    dropped = {reason: count for reason, count in summary.provenance.dropped.items() if "beyond" in reason}
    assert (len(requests), sum(dropped.values())) == ((1, 3) if join == "rows" else (2, 2))


def test_image_to_image_is_kept_and_said(folder: Path) -> None:
    write(
        folder / f"{ADAPTERS}.gz",
        f"{ADAPTER_HEADER}\n{use(kind='f54c9d4e8a16832ef4cd01da8f723c8c')}\n{use()}\n",
    )
    _, summary = imported("gentd26", folder)
    assert (
        summary.provenance.filled_in["predict_type"] == "image-to-image is kept as text-to-image (1 request)"
    )


def test_the_file_of_adapters_alone_needs_made_up_arrivals(folder: Path) -> None:
    source = folder / f"{ADAPTERS}.gz"
    assert "has no arrival times; make them up with --request-rate R" in refusal("gentd26", source)
    requests, summary = imported("gentd26", source, request_rate=2.0)
    assert len(requests) == 5
    assert sorted(r.timestamp for r in requests) == [r.timestamp for r in requests]
    assert summary.provenance.filled_in["timestamp"] == "Poisson arrivals, 2 a second"


def test_the_file_of_arrivals_alone_gets_made_up_ids_as_many_as_it_had(folder: Path) -> None:
    requests, summary = imported("gentd26", folder / ARRIVALS, seed=4)
    assert [len(r.loras) for r in requests] == [1, 0, 2, 1]
    assert "made-up ids" in summary.provenance.filled_in["loras"]
    assert requests == imported("gentd26", folder / ARRIVALS, seed=4)[0]
    assert requests != imported("gentd26", folder / ARRIVALS, seed=5)[0]


def test_no_controlnets_are_made_up_unless_asked_for(folder: Path) -> None:
    assert not any(r.controlnets for r in imported("gentd26", folder)[0])
    requests, summary = imported("gentd26", folder, controlnet_share=1.0)
    assert all(len(r.controlnets) == 1 for r in requests)
    assert all((summary.trace.parent / r.controlnets[0].image).is_file() for r in requests)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (ARRIVALS, "", "the file is empty; its first line must name the columns"),
        (ARRIVALS, "a,b\n1,2\n", ":1: unknown column 'a'"),
        (ARRIVALS, ARRIVAL_HEADER.replace(",groupId", ""), ":1: column groupId is missing"),
        (ARRIVALS, f"{ARRIVAL_HEADER}\n{arrival(0)},x\n", ":2: 12 cells, but the header names 11 columns"),
        (
            ARRIVALS,
            f"{ARRIVAL_HEADER}\n{arrival(0, 0, 'DONE')}\n",
            ":2: predict_status is 'DONE', but must be one",
        ),
        (ARRIVALS, f"{ARRIVAL_HEADER}\n{arrival(0, -1)}\n", ":2: num_lora is -1, but must be from 0 to 64"),
        (ARRIVALS, f"{ARRIVAL_HEADER}\n{arrival(2)}\n{arrival(1)}\n", "timestamp goes back by 1 s"),
        (
            ARRIVALS,
            f"{ARRIVAL_HEADER}\n{arrival(0, steps='many')}\n",
            ":2: num_inference_steps is 'many', but",
        ),
        (
            f"{ADAPTERS}.gz",
            f"{ADAPTER_HEADER}\n{use(steps='0')}\n",
            ":2: num_inference_steps is 0, but must be",
        ),
        (
            f"{ADAPTERS}.gz",
            f"{ADAPTER_HEADER}\n{use()[:-4]}open(0)\n",
            ":2: lora_args is 'open(0)', but must be a",
        ),
        (f"{ADAPTERS}.gz", f"{ADAPTER_HEADER}\n{use()[:-1]}\n", ":2: not valid CSV: unexpected end of data"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(folder: Path, name: str, text: str, message: str) -> None:
    write(folder / name, text)
    assert message in refusal("gentd26", folder)


def test_a_folder_without_one_of_the_files_is_refused(folder: Path) -> None:
    (folder / ARRIVALS).unlink()
    assert f"there must be one file {ARRIVAL_FILES}, but there is none" in refusal("gentd26", folder)
    write(folder / ADAPTERS, "")
    assert f"one file {ADAPTER_FILES}, but there is {ADAPTERS}, {ADAPTERS}.gz" in refusal("gentd26", folder)


def test_a_truncated_gzip_is_refused_and_nothing_is_left(folder: Path) -> None:
    whole = gzip.compress("\n".join([ADAPTER_HEADER, *(use(f"lora{i}") for i in range(4000))]).encode())
    (folder / f"{ADAPTERS}.gz").write_bytes(whole[: len(whole) // 2])
    write(folder / ARRIVALS, "\n".join([ARRIVAL_HEADER, *(arrival(i // 100) for i in range(4000))]))
    assert "the gzip data ends here, unfinished" in refusal("gentd26", folder)


@pytest.mark.skipif(not REAL.is_dir(), reason="GenTD26 is not beside the checkout")
def test_the_real_files_give_what_is_known_of_them(tmp_path: Path) -> None:
    source = tmp_path / "gentd26"
    source.symlink_to(REAL)
    requests, summary = imported("gentd26", source)
    assert len(requests) == 26_392
    assert summary.provenance.dropped["arrivals: predict_status FAILED"] == 398
    shares = [sum(len(r.loras) == n for r in requests) / len(requests) for n in range(3)]
    assert shares == pytest.approx([0.736, 0.243, 0.0125], abs=0.05)
    assert summary.duration_s == pytest.approx(23 * 86_400, rel=0.01)
