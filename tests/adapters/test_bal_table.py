from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.adapters.bal import LoraBound
from swiftdiff.adapters.bal_table import BalTable, TableEntry, read_bal_table
from swiftdiff.errors import ConfigError
from swiftdiff.request import AdapterRecord, ImageRequest, LoraUse

DIGEST = "ab" * 32


def make_table(**ks: int) -> BalTable:
    return BalTable(
        format=1,
        model="shapes",
        weights_sha256=DIGEST,
        scheduler="euler",
        num_inference_steps=20,
        margin={"style": 0.05},
        loras={name: TableEntry(k=k, sha256=DIGEST, scale=1.0, pictures=16) for name, k in ks.items()},
    )


def request(*loras: LoraUse, steps: int = 20) -> ImageRequest:
    return ImageRequest(request_id="r", timestamp=0, prompt="", num_inference_steps=steps, loras=loras)


def test_a_written_table_reads_as_it_was(tmp_path: Path) -> None:
    table = make_table(neon=3, **{"org.style-v2": 0})
    path = tmp_path / "bal-table.toml"
    path.write_text(table.to_toml())
    assert read_bal_table(path) == table


def test_a_request_waits_at_the_lowest_k_of_its_loras() -> None:
    table = make_table(neon=6, gold=2)
    bound = table.bound_of(request(LoraUse(id="neon"), LoraUse(id="gold", scale=-0.5)))
    assert (bound.k, bound.loras) == (2, {"neon": LoraBound(6), "gold": LoraBound(2)})
    assert table.bound_of(request()).k == 0


def test_k_is_a_share_of_the_steps_rounded_down() -> None:
    table = make_table(neon=6)
    assert [table.bound_of(request(LoraUse(id="neon"), steps=n)).k for n in (1, 3, 10, 50)] == [0, 0, 3, 15]


@pytest.mark.parametrize(
    ("use", "note"),
    [
        (LoraUse(id="other"), "not in bal_table"),
        (LoraUse(id="neon", scale=1.2), "scale above the 1 of bal_table"),
        (LoraUse(id="neon", scale=-1.2), "scale above the 1 of bal_table"),
    ],
)
def test_what_was_not_measured_waits_at_step_0_and_its_record_says_so(use: LoraUse, note: str) -> None:
    bound = make_table(neon=6, gold=5).bound_of(request(LoraUse(id="gold"), use))
    assert bound.k == 0
    records = [
        AdapterRecord(kind=kind, id=name, source="store", bytes_loaded=1, load_s=0.1)
        for kind, name in (("controlnet", "gold"), ("lora", "gold"), ("lora", use.id))
    ]
    noted = bound.note_in(records)
    assert [(each.bal_k, each.bal_note) for each in noted] == [(None, None), (5, None), (0, note)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("k = 6", "k = -1", "loras.neon.k is -1, but must be at least 0"),
        ("k = 6", "k = 20", "must be a k below num_inference_steps (20) for 'neon'"),
        ("k = 6", 'k = "6"', "loras.neon.k is '6', but must be an integer"),
        ("k = 6", "k = 6\nkk = 6", "unknown field 'kk'"),
        ("format = 1", "format = 2", "format is 2, but must be 1"),
        ("format = 1", "format = ", "not valid TOML"),
        (f'sha256 = "{DIGEST}"\nscale', 'sha256 = "abc"\nscale', "loras.neon.sha256 is 'abc'"),
        ("scale = 1.0", "scale = nan", "loras.neon.scale is nan"),
        ("num_inference_steps = 20\n", "", "field num_inference_steps is missing"),
    ],
)
def test_a_wrong_table_is_refused_with_file_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "table.toml"
    text = make_table(neon=6).to_toml()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_bal_table(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "table.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"table\.toml"):
        read_bal_table(path)
