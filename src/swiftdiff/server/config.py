"""Owns how the server is set up: strict TOML into frozen models, options of the command line over it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from swiftdiff.errors import ConfigError
from swiftdiff.request import MAX_IMAGES, MAX_SIDE, MAX_STEPS
from swiftdiff.validation import StrictModel, describe

PolicyName = Literal["fifo", "adapter-affinity", "edf"]


class Limits(StrictModel):
    """The most that one request may ask for; more is refused before it is queued.

    Attributes:
        body_bytes: Of a request's body.
        body_s: Seconds until the whole body is here.
        side: Pixels.
        pixels: Width times height.
        images: Pictures.
        steps: Denoising steps.
        prompt_chars: Of each prompt.
        controlnets: ControlNets.
        loras: LoRAs.
        control_pixels: Width times height of a control image.
    """

    body_bytes: Annotated[int, Field(ge=1000)] = 20_000_000
    body_s: Annotated[int, Field(ge=1)] = 30
    side: Annotated[int, Field(ge=8, le=MAX_SIDE)] = 2048
    pixels: Annotated[int, Field(ge=64)] = 2048 * 2048
    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 8
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 150
    prompt_chars: Annotated[int, Field(ge=1)] = 4000
    controlnets: Annotated[int, Field(ge=0)] = 4
    loras: Annotated[int, Field(ge=0)] = 8
    control_pixels: Annotated[int, Field(ge=64)] = 4096 * 4096


class Defaults(StrictModel):
    """What a request gets when it does not say."""

    num_inference_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] = 20
    guidance_scale: Annotated[float, Field(ge=0, le=100)] = 5.0


class ServerConfig(StrictModel):
    """A server.

    Attributes:
        host: Address to listen on; only this machine reaches the default.
        port: 0 is any free one.
        api_key: What clients must send as a bearer token, or None for no check.
        allowed_hosts: Names that a ``Host`` header may have besides loopback ones, against DNS rebinding;
            None allows any unless the server listens on a loopback address.
        cors_origins: Origins whose pages may call the API.
        queue_size: Requests that may wait.
        policy: Which waiting request is served next.
        max_overtakes: With ``adapter-affinity``, how often the oldest request may be overtaken.
        timeout_s: Seconds from arrival after which any request is answered 504.
        slo: ``deadline`` answers 504 when a request's ``slo_ms`` has passed; ``target`` serves it late.
        drain_s: Seconds after SIGTERM in which what was accepted is served.
        max_batch: Pictures that may be denoised as one; 1 makes no batches. They are of waiting requests that
            agree in all but prompts, seeds, control images and numbers of pictures, and a batch is made where
            the server has measured that a picture takes less time in it.
        stock: Whether requests may ask for stock diffusers, which loads the base model a second time.
        access_log: Gets a record of each request; None writes none.
        access_log_bytes: Size at which a new file is begun.
        access_log_files: Old files that are kept.
        limits: Of a request.
        defaults: Of a request.
    """

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8288
    api_key: Annotated[str, Field(min_length=8)] | None = None
    allowed_hosts: tuple[str, ...] | None = None
    cors_origins: tuple[str, ...] = ()
    queue_size: Annotated[int, Field(ge=1, le=10_000)] = 64
    policy: PolicyName = "fifo"
    max_overtakes: Annotated[int, Field(ge=1)] = 8
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    slo: Literal["deadline", "target"] = "deadline"
    drain_s: Annotated[float, Field(ge=0)] = 30.0
    max_batch: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 4
    stock: bool = True
    access_log: str | None = "results/serve-local/access.jsonl"
    access_log_bytes: Annotated[int, Field(ge=1000)] = 50_000_000
    access_log_files: Annotated[int, Field(ge=1)] = 5
    limits: Limits = Limits()
    defaults: Defaults = Defaults()

    @property
    def is_local(self) -> bool:
        """Tell whether only this machine reaches it."""
        return self.host in ("127.0.0.1", "::1", "localhost")

    @model_validator(mode="after")
    def _check_defaults(self) -> Self:
        if self.defaults.num_inference_steps > self.limits.steps:
            raise ValueError("defaults.num_inference_steps that is at most limits.steps")
        return self


def load_server_config(path: Path | None, **options: Any) -> ServerConfig:
    """Read a server's config.

    Args:
        path: TOML file, or None for the defaults.
        **options: Fields of `ServerConfig` that take the place of the file's; None says nothing.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    where = "options" if path is None else str(path)
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where}: not valid TOML: {error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"cannot read server config {path}: it is not UTF-8 text") from error
        except OSError as error:
            raise ConfigError(f"cannot read server config {path}: {error.strerror or error}") from error
    values |= {name: value for name, value in options.items() if value is not None}
    values |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    if values.get("access_log") == "none":
        values["access_log"] = None
    try:
        return ServerConfig.model_validate(values)
    except ValidationError as error:
        problem = describe(error, ServerConfig, secret=("api_key",))
        raise ConfigError(f"{where}: {problem}") from error
