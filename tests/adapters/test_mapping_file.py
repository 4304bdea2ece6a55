"""Tests that ``--adapters`` takes a rule's name or a file of pairs, and that what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from swiftdiff.adapters.mapping_file import read_rule
from swiftdiff.errors import ConfigError


@pytest.mark.parametrize("name", ["alias", "popularity", "hash"])
def test_a_rule_is_known_by_its_name(name: str) -> None:
    assert read_rule(name).how == name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.json", '{"loras": {"a": "gold", "β/1": "neon"}, "controlnets": {"a": "edges"}}'),
        ("m.CSV", "\ufeffkind,id,store_id\r\nlora,a,gold\r\nlora,β/1,neon\r\ncontrolnet,a,edges\r\n"),
        ("m.csv", "id,store_id,kind\na,gold,lora\nβ/1,neon,lora\na,edges,controlnet\n"),
    ],
)
def test_each_form_of_file_reads_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8", newline="")
    rule = read_rule(str(path))
    assert (rule.how, rule.file_name) == ("file", name)
    assert rule.targets == {"lora": {"a": "gold", "β/1": "neon"}, "controlnet": {"a": "edges"}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", None, "No such file"),
        ("m.json", b"", "not valid JSON"),
        ("m.json", b"{", "not valid JSON"),
        ("m.json", b"[" * 100_000, "not valid JSON"),
        ("m.json", b"\xff", "not UTF-8"),
        ("m.json", b"[]", "must be an object"),
        ("m.json", b"{}", "maps nothing"),
        ("m.json", b'{"loras": {}}', "maps nothing"),
        ("m.json", b'{"lora": {"a": "gold"}}', "unknown field 'lora'; did you mean 'loras'?"),
        ("m.json", b'{"loras": {"a": 1}}', "loras.a is 1, but must be a string"),
        ("m.json", b'{"loras": {"a": "x", "a": "y"}}', "'a' is given more than once"),
        ("m.csv", b"", "line 1: header is None, but must be kind,id,store_id"),
        ("m.csv", b"kind,id\nlora,a\n", "line 1: header is"),
        ("m.csv", b"kind,id,store_id\n", "maps nothing"),
        ("m.csv", b"kind,id,store_id\nlora,a\n", "line 2: store_id is None, but must be a string"),
        ("m.csv", b"kind,id,store_id\nlora,a,b,c\n", "line 2: unknown field 'more'"),
        ("m.csv", b"kind,id,store_id\nunet,a,b\n", "line 2: kind is 'unet', but must be one of"),
        ("m.csv", b"kind,id,store_id\nlora,a,b\nlora,a,c\n", "line 3: 'a' is given more than once"),
        ("m.csv", b'kind,id,store_id\nlora,"a,b\n', "not valid CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name_place_and_reason(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_rule(str(path))
    assert message in caught.value.message
    assert f"--adapters {path}" in caught.value.message


@pytest.mark.parametrize("text", ["alais", "", "m.txt", "m.toml", "/tmp"])
def test_what_is_neither_rule_nor_file_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"must be alias, popularity, hash, or a mapping file that ends in \.j"
    ):
        read_rule(text)
