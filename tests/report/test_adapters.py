from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run_folders import failed, make_run, served

from swiftdiff.engine.run_folder import RunFolder
from swiftdiff.report.run_report import write_report
from swiftdiff.report.summary import STAGE_ORDER, stage_order


def lora(source: str, load_s: float, step: int, num_bytes: int = 0) -> dict[str, Any]:
    return {
        "kind": "lora",
        "id": "neon",
        "source": source,
        "bytes_loaded": num_bytes,
        "load_s": load_s,
        "step_patched": step,
    }


def with_loras(request_id: str, wait_s: float, *adapters: dict[str, Any], **fields: Any) -> Any:
    stages = {"text_encode": 0.1, "lora_wait": wait_s, "denoise": 1.0, "restore": 0.1}
    return served(
        request_id, 1.1 + wait_s, stages=stages, loras=("neon",) * len(adapters), adapters=adapters, **fields
    )


def test_a_run_that_tells_of_its_adapters_says_what_came_from_memory(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        [
            with_loras("cold", 0.3, lora("store", 0.5, 4, 1_000_000)),
            with_loras("warm", 0.0, lora("cache", 0.0, 0), lora("shared", 0.1, 2)),
            served("plain", 1.0),
        ],
    )
    write_report(RunFolder(run))
    adapters = json.loads((run / "summary.json").read_text())["adapters"]
    assert set(adapters) == {"lora"}
    use = adapters["lora"]
    assert (use["uses"], use["from_cache"], use["from_store"], use["shared"]) == (3, 1, 1, 1)
    assert use["hit_rate"] == 1 / 3
    assert use["bytes_loaded"] == 1_000_000
    assert use["mean_load_ms"] == 300  # of the two that were not in memory
    assert use["mean_wait_ms"] == 150  # of the two requests with LoRAs
    assert use["steps_patched"] == [0, 2, 4]
    rows = (run / "tables/adapters.csv").read_text().splitlines()
    assert rows[0] == "adapters,LoRA,ControlNet,unit"
    assert "loaded,1.0,,MB" in rows
    assert [row for row in rows if row.startswith('"patched')] == [
        '"patched at step, first",0,,',
        '"patched at step, median",2.0,,',
        '"patched at step, last",4,,',
    ]
    assert "## Adapters" in (run / "report.md").read_text()


def test_a_run_whose_system_does_not_tell_has_no_adapter_table(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [served("a", 1.0, loras=("neon",)), failed("b")])
    write_report(RunFolder(run))
    assert "adapters" not in json.loads((run / "summary.json").read_text())
    assert not (run / "tables/adapters.csv").exists()
    assert "## Adapters" not in (run / "report.md").read_text()


def test_warm_ups_are_no_uses(tmp_path: Path) -> None:
    warmup = with_loras("w", 0.3, lora("store", 0.5, 4), warmup=True)
    run = make_run(tmp_path / "run", [warmup, with_loras("a", 0.0, lora("cache", 0.0, 0))], num_requests=1)
    write_report(RunFolder(run))
    use = json.loads((run / "summary.json").read_text())["adapters"]["lora"]
    assert (use["uses"], use["hit_rate"], use["mean_load_ms"]) == (1, 1.0, None)


def test_a_stage_that_is_not_known_stands_before_other() -> None:
    names = sorted([*STAGE_ORDER, "upscale"], key=stage_order)
    assert names.index("image_save") < names.index("upscale") < names.index("other")


def test_a_run_with_a_table_of_k_says_how_late_loras_could_be_and_which_were_not_in_it(
    tmp_path: Path,
) -> None:
    known, unknown = lora("store", 0.5, 2) | {"bal_k": 4}, lora("store", 0.5, 0) | {"bal_k": 0}
    run = make_run(
        tmp_path / "run",
        [
            with_loras("known", 0.0, known),
            with_loras("unknown", 0.4, unknown | {"bal_note": "not in bal_table"}),
        ],
    )
    write_report(RunFolder(run))
    use = json.loads((run / "summary.json").read_text())["adapters"]["lora"]
    assert (use["bal_k"], use["not_in_bal_table"]) == ([0, 2, 4], 1)
    rows = (run / "tables/adapters.csv").read_text().splitlines()
    assert '"k of bal_table, highest",4,,' in rows
    assert "k = 0: not in bal_table,1,,uses" in rows
