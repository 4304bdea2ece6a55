from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fake_image_server import Answer, serving

from swiftdiff.client.target import HttpTarget, find_target, parse_url, read_api_key, read_target
from swiftdiff.errors import ConfigError, StorageError


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_addresses_are_taken_with_and_without_v1(end: str) -> None:
    assert parse_url(f"http://host:80/base{end}") == "http://host:80/base"


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host", "http://", "http://h:x", "http://h/?a=1", "", "http://a b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="--target is"):
        parse_url(url)


def test_a_password_in_an_address_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError, match="api-key-file") as caught:
        parse_url("http://me:hunter2@host")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "asked", "expected"),
    [
        ((200, {"data": [{"id": "only"}]}), None, "only"),
        ((200, {"data": [{"id": "a"}, {"id": "b"}]}), "b", "b"),
        ((404, b"not here"), None, None),
        ((404, b"not here"), "mine", "mine"),
        ((200, b"no json"), None, None),
        ((200, {"data": [{"name": "odd"}]}), None, None),
    ],
)
def test_the_model_is_the_servers_only_one_or_the_one_asked_for(
    models: Answer, asked: str | None, expected: str | None
) -> None:
    with serving(models=models) as server:
        assert asyncio.run(find_target(server.url, asked, None)).model == expected


@pytest.mark.parametrize(
    ("models", "asked", "message"),
    [
        ((200, {"data": [{"id": "a"}, {"id": "b"}]}), None, "choose by --model: a, b"),
        ((200, {"data": [{"id": "a"}]}), "c", "--model is 'c', but must be one that"),
        ((401, {"error": {"message": "no"}}), None, "wants a key: --api-key-file"),
    ],
)
def test_a_server_that_cannot_be_used_is_told_at_once(
    models: Answer, asked: str | None, message: str
) -> None:
    with serving(models=models) as server, pytest.raises(ConfigError, match=message):
        asyncio.run(find_target(server.url, asked, None))


def test_a_server_that_is_not_there_is_told_at_once() -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(ConfigError, match="does not answer"):
        asyncio.run(find_target(url, None, None))


def test_a_target_is_read_as_it_was_written(tmp_path: Path) -> None:
    target = HttpTarget(name="host", url="http://host", model="m")
    path = tmp_path / "config.toml"
    path.write_text(target.to_toml())
    assert read_target(path) == target
    for damaged in ("x = ", 'name = "a"', 'name = "a"\nengine = "http"\nurl = "nothing"\n'):
        path.write_text(damaged)
        with pytest.raises(StorageError, match="damaged"):
            read_target(path)


def test_a_key_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret-key\nmore\n")
    assert read_api_key(path) == "secret-key"
    for wrong in ("", "\n", "schlüssel"):
        path.write_text(wrong)
        with pytest.raises(ConfigError, match="must hold a key"):
            read_api_key(path)
    with pytest.raises(ConfigError, match="cannot read --api-key-file"):
        read_api_key(tmp_path / "none")
