"""Owns the system config: strict TOML, validated once into frozen models."""

from __future__ import annotations

import itertools
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import Field, ValidationError, field_validator, model_validator

from swiftdiff.errors import ConfigError
from swiftdiff.validation import StrictModel, describe

Dtype = Literal["float32", "float16", "bfloat16"]
SchedulerName = Literal["euler", "dpmpp_2m", "ddim"]
NoiseLevel = Annotated[float, Field(ge=0)]
Similarity = Annotated[float, Field(ge=-1, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]


class StoreEmulationConfig(StrictModel):
    """How far away an adapter store is made to be: by numbers, or by times that were measured on one.

    The time is added to what a fetch really takes. It depends on the seed, the adapter and how often that
    adapter was fetched before, and on nothing else, so that runs repeat and systems compare.

    Attributes:
        latency_ms: Time to the first byte of each fetch.
        bandwidth_mb_s: Bandwidth of each fetch in megabytes (10^6) a second; None is unlimited. Fetches at
            one time do not share it.
        jitter: How much that time varies: the coefficient of variation (standard deviation over mean) of a
            lognormal factor with mean 1, drawn for each fetch. 0 is always the same time.
        latency_file: Measured times to draw from instead, with equal chances: CSV, JSONL or JSON, gzipped or
            not, relative to the config file. See `swiftdiff.adapters.measured_times.read_measurements`.
        lora_latency_file: In place of ``latency_file``, times of LoRAs alone; needs the next one too.
        controlnet_latency_file: Times of ControlNets alone.
        latency_scale: What measured times are multiplied with, to replay a slow store in less time.
        seed: Of the draws.
    """

    latency_ms: Annotated[float, Field(ge=0, le=3.6e6)] = 0.0
    bandwidth_mb_s: Annotated[float, Field(ge=0.001)] | None = None
    jitter: Annotated[float, Field(ge=0, le=10)] = 0.0
    latency_file: Annotated[str, Field(min_length=1)] | None = None
    lora_latency_file: Annotated[str, Field(min_length=1)] | None = None
    controlnet_latency_file: Annotated[str, Field(min_length=1)] | None = None
    latency_scale: Annotated[float, Field(gt=0, le=1000)] = 1.0
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _check_that_all_of_it_counts(self) -> Self:
        by_kind = (self.lora_latency_file, self.controlnet_latency_file)
        is_measured = self.latency_file is not None or any(by_kind)
        by_numbers = self.latency_ms > 0 or self.bandwidth_mb_s is not None
        if is_measured and (by_numbers or self.jitter > 0):
            raise ValueError("either a latency_file or latency_ms, bandwidth_mb_s and jitter, not both")
        if self.latency_file is not None and any(by_kind):
            raise ValueError("either a latency_file or one for each kind of adapter, not both")
        if any(by_kind) and not all(by_kind):
            raise ValueError("lora_latency_file and controlnet_latency_file together, or one latency_file")
        if not is_measured and self.jitter > 0 and not by_numbers:
            raise ValueError("latency_ms or bandwidth_mb_s too, which jitter can vary")
        if not is_measured and self.latency_scale != 1:
            raise ValueError("a latency_file too, whose times latency_scale can change")
        return self

    def relative_to(self, base: Path) -> StoreEmulationConfig:
        """Return a config whose files are absolute, relative ones counted from ``base``."""
        names = ("latency_file", "lora_latency_file", "controlnet_latency_file")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        files = {name: str((base / Path(file).expanduser()).resolve()) for name, file in given.items()}
        return self.model_copy(update=files)


class AdapterStoreConfig(StrictModel):
    """Where adapters come from, and how far away that is.

    Attributes:
        url: Any fsspec URL or a folder, relative to the config file; None is the model's own adapters.
        emulate: Distance of a remote store, added to every fetch.
    """

    url: Annotated[str, Field(min_length=1)] | None = None
    emulate: StoreEmulationConfig = StoreEmulationConfig()

    def relative_to(self, base: Path) -> AdapterStoreConfig:
        """Return a config whose folder and file are absolute, relative ones counted from ``base``."""
        url = self.url
        if url is not None and "://" not in url and "::" not in url:
            url = str((base / Path(url).expanduser()).resolve())
        return AdapterStoreConfig(url=url, emulate=self.emulate.relative_to(base))


class DiffusersConfig(StrictModel):
    """Options of the stock baseline.

    Attributes:
        fuse_lora: Fuse LoRAs into the weights before denoising, as diffusers recommends for speed.
        channels_last: Keep the UNet and ControlNets in channels-last memory format.
        compile: Compile the UNet with ``torch.compile``; slow to start and rarely faster on a CPU.
        max_cached_controlnets: ControlNets kept in memory between requests, least recently used out first.
    """

    fuse_lora: bool = True
    channels_last: bool = False
    compile: bool = False
    max_cached_controlnets: Annotated[int, Field(ge=0)] = 8


class SwiftdiffConfig(StrictModel):
    """Switches of the engine ``swiftdiff``. All are exact but ``bal_k`` above 0 and the last six.

    Attributes:
        lanes: Where it computes, such as ``["cuda:0", "cuda:1"]`` or ``["cpu:0", "cpu:1"]``; None is two
            lanes of half the threads on a CPU with several, and one on ``device`` else.
        latent_parallelism: The two halves of guidance on two lanes.
        controlnet_offload: ControlNets on other lanes than the UNet's, beside its encoder half.
        graph_replay: Replay captured graphs (traced on the CPU, CUDA graphs on GPUs) in place of Python.
        tuned_kernels: On the CPU, compute float32 layers by oneDNN with weights in its own layout. Takes
            memory for a copy of the convolutions, and of all weights of ControlNets. On GPUs, compute the
            query, key and value of a self-attention layer by one product.
        channels_last: Keep convolutions' weights channels last, for GPUs that prefer it.
        compile_blocks: Compile each kind of transformer block with ``torch.compile``. The first request of a
            size waits for it, seconds to minutes; a LoRA compiles nothing again. Without graphs on a CPU.
        reuse_invariants: Compute what does not change over a request's steps once.
        prefetch: Adapters load when a request arrives, and the next request's prompt is encoded while one is
            denoised; otherwise all of it begins when the request is served.
        decode_lane: Lane that decodes pictures while the next request is denoised; None decodes first.
        bal_k: Steps that may begin without a LoRA that is still loading: a number, a share of the steps
            such as ``"40%"``, or ``"auto"``, which takes the lowest of the request's LoRAs in ``bal_table``.
            0 waits, and is exact.
        bal_table: The file that ``swiftdiff sweep-k`` writes, relative to the config file; for ``"auto"``.
        lora_cache_mb: Host memory for LoRAs between requests, in 10^6 bytes.
        controlnet_cache_mb: Host memory for ControlNets between requests.
        controlnet_device_mb: Memory on each GPU for ControlNets between requests.
        graph_device_mb: Memory for arguments and results of CUDA graphs; those used least recently are
            captured again when they are needed.
        pristine_device_mb: Memory on each GPU for copies of weights that LoRAs change; the rest is kept on
            the host. None is no limit.
        eviction: Which adapter leaves a full cache: the least recently or least frequently used.
        max_concurrent_loads: Adapters read from the store at one time.
        load_attempts: Reads of an adapter whose store does not answer, before its request fails.
        controlnet_reuse: Steps for which ControlNets' residuals are used; 1 computes them at every step, and
            is exact.
        guidance_interval: Noise levels (sigmas, the standard deviation of the noise) above the first and up
            to the second are guided, the others are not (arXiv 2404.07724); None guides all, and is exact.
        step_cache: Steps for which the UNet's deep features are used (arXiv 2312.00858, DeepCache); 1
            computes them at every step, and is exact.
        vae_dtype: What the VAE decodes in; ``auto`` is what stock does, float32 for a float16 VAE that would
            overflow, as SDXL's does, and is exact.
        vae_tile_side: Pixels of the overlapping tiles that larger pictures are decoded in, for GPUs with
            little memory; 0 decodes them whole, and is exact.
        quantized_weights: Multiply by 8-bit copies of the transformer blocks' weights, with the extra
            ``quantized``; LoRAs go into the weights themselves, and the copies follow. ``int8`` needs
            ``compile_blocks``: torchao's own product waits for the GPU (pytorch/ao 4872), which no CUDA graph
            can. None is exact.
    """

    lanes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    latent_parallelism: bool = True
    controlnet_offload: bool = True
    graph_replay: bool = True
    tuned_kernels: bool = True
    channels_last: bool = False
    compile_blocks: bool = False
    reuse_invariants: bool = True
    prefetch: bool = True
    decode_lane: str | None = None
    bal_k: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^(auto|\d+(\.\d+)? ?%)$")] = 0
    bal_table: Annotated[str, Field(min_length=1)] | None = None
    lora_cache_mb: Annotated[float, Field(ge=0)] = 1000.0
    controlnet_cache_mb: Annotated[float, Field(ge=0)] = 8000.0
    controlnet_device_mb: Annotated[float, Field(ge=0)] = 8000.0
    graph_device_mb: Annotated[float, Field(ge=0)] = 4000.0
    pristine_device_mb: Annotated[float, Field(ge=0)] | None = None
    eviction: Literal["lru", "lfu"] = "lru"
    max_concurrent_loads: Annotated[int, Field(ge=1)] = 4
    load_attempts: Annotated[int, Field(ge=1)] = 3
    controlnet_reuse: Annotated[int, Field(ge=1)] = 1
    guidance_interval: tuple[NoiseLevel, NoiseLevel] | None = None
    step_cache: Annotated[int, Field(ge=1)] = 1
    vae_dtype: Literal["auto"] | Dtype = "auto"
    vae_tile_side: Annotated[int, Field(ge=0, multiple_of=8)] = 0
    quantized_weights: Literal["int8", "float8"] | None = None

    @property
    def computes_exactly(self) -> bool:
        """Whether weights and pictures are computed as precisely as stock computes them."""
        return self.quantized_weights is None and self.vae_dtype == "auto" and self.vae_tile_side == 0

    @field_validator("guidance_interval")
    @classmethod
    def _check_that_it_holds_something(cls, interval: tuple[float, float] | None) -> Any:
        if interval is not None and interval[0] >= interval[1]:
            raise ValueError("two noise levels, the lower one first")
        return interval

    @model_validator(mode="after")
    def _check_that_int8_is_compiled(self) -> Self:
        if self.quantized_weights == "int8" and not self.compile_blocks:
            raise ValueError('compile_blocks = true too for quantized_weights = "int8"')
        return self

    @model_validator(mode="after")
    def _check_that_auto_has_a_table(self) -> Self:
        if self.bal_k == "auto" and self.bal_table is None:
            raise ValueError('a bal_table too for bal_k = "auto"; swiftdiff sweep-k writes one')
        if self.bal_k != "auto" and self.bal_table is not None:
            raise ValueError('bal_k = "auto" too for bal_table to count')
        return self

    def relative_to(self, base: Path) -> SwiftdiffConfig:
        """Return switches whose files are absolute, relative ones counted from ``base``."""
        if self.bal_table is None:
            return self
        return self.model_copy(
            update={"bal_table": str((base / Path(self.bal_table).expanduser()).resolve())}
        )


class NirvanaConfig(StrictModel):
    """Options of the engine ``nirvana``, which serves by those of ``diffusers`` besides.

    Attributes:
        embedding: Of prompts, to compare them by: ``pooled`` is the text encoder's own, as published for
            CLIP; ``tokens`` is that of every token, for text encoders that were not trained to pool.
        skips: Pairs of a similarity of prompts (a cosine, -1 to 1) and the share of steps that are skipped
            from it on, both rising. The default is meant for CLIP and skips 5 to 25 of 50 steps, as the
            paper does; where it begins to was not checked against the paper. Other text encoders spread
            prompts otherwise.
        cache_mb: Host memory for latents, in 10^6 bytes.
        eviction: What leaves a full cache: ``lcbfu`` the least of uses times steps saved, as published;
            ``lru`` the least recently used.
    """

    embedding: Literal["pooled", "tokens"] = "pooled"
    skips: Annotated[tuple[tuple[Similarity, Share], ...], Field(min_length=1)] = (
        (0.65, 0.1),
        (0.75, 0.2),
        (0.85, 0.3),
        (0.9, 0.4),
        (0.95, 0.5),
    )
    cache_mb: Annotated[float, Field(ge=0)] = 1000.0
    eviction: Literal["lcbfu", "lru"] = "lcbfu"

    @field_validator("skips")
    @classmethod
    def _check_that_both_rise(cls, skips: tuple[tuple[float, float], ...]) -> Any:
        if any(a[0] >= b[0] or a[1] >= b[1] for a, b in itertools.pairwise(skips)):
            raise ValueError("pairs of which similarity and share both rise")
        return skips


class ServingConfig(StrictModel):
    """One way of serving a trace.

    Attributes:
        name: How tables call this system.
        engine: Which system serves.
        model: Embedded model or preset by name, a diffusers folder, a single file or a hub id.
        device: A torch device, such as ``cpu`` or ``cuda:0``.
        dtype: Type of weights and activations.
        scheduler: Noise scheduler.
        threads: Intra-op threads; None is torch's choice.
        adapters: The adapter store.
        diffusers: Options of the engine ``diffusers``.
        swiftdiff: Switches of the engine ``swiftdiff``.
        nirvana: Options of the engine ``nirvana``.
    """

    name: Annotated[str, Field(min_length=1, max_length=80)]
    engine: Literal["diffusers", "swiftdiff", "nirvana"]
    model: Annotated[str, Field(min_length=1)] = "shapes"
    device: Annotated[str, Field(min_length=1)] = "cpu"
    dtype: Dtype = "float32"
    scheduler: SchedulerName = "euler"
    threads: Annotated[int, Field(ge=1)] | None = None
    adapters: AdapterStoreConfig = AdapterStoreConfig()
    diffusers: DiffusersConfig = DiffusersConfig()
    swiftdiff: SwiftdiffConfig = SwiftdiffConfig()
    nirvana: NirvanaConfig = NirvanaConfig()

    def to_toml(self) -> str:
        """Return the whole config, defaults written out; reading it gives an equal config."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


def load_config(path: Path | str) -> ServingConfig:
    """Read a system config.

    Raises:
        ConfigError: The file is missing, is not TOML, or a key or value in it is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read config {path}: {_reason(error)}") from error
    return parse_config(text, str(path))


def parse_config(text: str, where: str = "config") -> ServingConfig:
    """Validate TOML text; ``where`` names it in errors.

    Raises:
        ConfigError: It is not TOML, or a key or value in it is wrong.
    """
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    try:
        return ServingConfig.model_validate(_with_tuples(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe(error, ServingConfig)}") from error


def _with_tuples(value: Any) -> Any:
    """Return what TOML gave with tuples for its lists: frozen models hold tuples and take nothing else."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return getattr(error, "strerror", None) or str(error)
