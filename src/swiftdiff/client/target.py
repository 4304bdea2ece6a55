"""Owns which server a replay goes to: its address, the model asked for, and whether it answers at all."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx2
import tomli_w
from pydantic import AfterValidator, Field, ValidationError

from swiftdiff.errors import ConfigError, StorageError
from swiftdiff.validation import StrictModel, describe

GENERATIONS = "/v1/images/generations"
MODELS = "/v1/models"
TIMEOUT_S = 600.0  # a server that hangs fails requests, it does not hang the replay
_CONNECT_TIMEOUT_S = 10.0
_ALLOWED = "an address such as http://127.0.0.1:8000, with or without /v1 at its end"


def parse_url(text: str) -> str:
    """Return a server's address without ``/v1``.

    Raises:
        ConfigError: It is none. One with a password is refused, since addresses are written into reports.
    """
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        known = False
    if not known or parts.query or parts.fragment or any(char.isspace() for char in text):
        raise ConfigError.for_field("--target", text, _ALLOWED)
    if parts.username is not None or parts.password is not None:
        raise ConfigError("--target holds a user name or password; give the key by --api-key-file FILE")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def _check_url(value: str) -> str:
    try:
        return parse_url(value)
    except ConfigError as error:
        raise ValueError(_ALLOWED) from error


class HttpTarget(StrictModel):
    """A server: what a run's ``config.toml`` holds if it went over HTTP. Its key is never written down.

    Attributes:
        name: How tables call it.
        url: Its address, without ``/v1``.
        model: The model that requests name; None lets the server decide.
        timeout_s: Seconds after which a request that got no byte of an answer fails.
    """

    name: str
    engine: Literal["http"] = "http"
    url: Annotated[str, AfterValidator(_check_url)]
    model: str | None = None
    timeout_s: Annotated[float, Field(gt=0)] = TIMEOUT_S

    def to_toml(self) -> str:
        """Return the text of ``config.toml``."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def read_target(path: Path) -> HttpTarget:
    """Return the target in a run's ``config.toml``.

    Raises:
        StorageError: It cannot be read or is damaged.
    """
    try:
        return HttpTarget.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        raise StorageError(f"{path} is damaged: {describe(error, HttpTarget)}") from error
    except ValueError as error:  # UTF-8 and TOML
        raise StorageError(f"{path} is damaged: {error}") from error


def read_api_key(path: Path) -> str:
    """Return the key in a file: its first line.

    Raises:
        ConfigError: It cannot be read or has no key.
    """
    try:
        key = path.read_text(encoding="utf-8").strip().partition("\n")[0].strip()
    except OSError as error:
        raise ConfigError(f"cannot read --api-key-file {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--api-key-file {path} is no text") from error
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"--api-key-file {path} must hold a key, of ASCII characters, in its first line")
    return key


def open_client(target: HttpTarget, api_key: str | None) -> httpx2.AsyncClient:
    """Return a client with as many connections as requests need, straight to the server: through no proxy."""
    return httpx2.AsyncClient(
        base_url=target.url,
        headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
        timeout=httpx2.Timeout(target.timeout_s, connect=_CONNECT_TIMEOUT_S),
        # Servers close idle connections after about five seconds; one that is reused just then fails.
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=2.0),
        trust_env=False,
    )


async def find_target(url: str, model: str | None, api_key: str | None) -> HttpTarget:
    """Ask a server for its models and return the target.

    Args:
        url: As the user gave it.
        model: The one to ask for; None takes the server's, if it has one.
        api_key: Sent as bearer token.

    Raises:
        ConfigError: The server does not answer, refuses the key, or has several models or not this one.
    """
    address = parse_url(url)
    target = HttpTarget(name=urlsplit(address).netloc, url=address, model=model)
    try:
        async with open_client(target, api_key) as client:
            response = await client.get(MODELS, timeout=_CONNECT_TIMEOUT_S)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        raise ConfigError(f"--target {url} does not answer: {reason}") from error
    if response.status_code in (401, 403):
        hint = "wants a key: --api-key-file FILE" if api_key is None else "refuses the key"
        raise ConfigError(f"--target {url} {hint} (HTTP {response.status_code})")
    known = _model_ids(response)
    if model is None and len(known) > 1:
        raise ConfigError(f"--target {url} has several models; choose by --model: {', '.join(known[:20])}")
    if model is not None and known and model not in known:
        raise ConfigError.for_field("--model", model, f"one that {url} has: {', '.join(known[:20])}")
    return target if model is not None or not known else target.model_copy(update={"model": known[0]})


def _model_ids(response: httpx2.Response) -> list[str]:
    """Return what a server lists; nothing if it does not speak of models."""
    if response.status_code != 200:
        return []
    try:
        listed: Any = response.json()["data"]
        return [entry["id"] for entry in listed if isinstance(entry["id"], str)]
    except (ValueError, KeyError, TypeError):
        return []
