"""Turns a model's name into a stock SDXL pipeline, and a ControlNet's folder into a stock ControlNet.

Only safetensors are ever read, headers are checked against file sizes first, and every dtype is said
explicitly (diffusers loads a UNet as float32, transformers 5 a text encoder as its config says: mixed,
nothing runs).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftdiff.errors import AdapterError, ConfigError, ModelError
from swiftdiff.models.checkpoints import (
    SDXL_REPOSITORY,
    cause,
    check_single_file,
    config_beside,
    fetch_hub_index,
)
from swiftdiff.models.folders import check_controlnet_folder, check_pipeline_folder, check_weight_keys
from swiftdiff.models.integrity import verify_manifest
from swiftdiff.models.presets import build_preset, find_preset
from swiftdiff.models.quiet import quiet_libraries
from swiftdiff.models.recipes import read_recipe
from swiftdiff.models.registry import ModelSource, resolve_model, shapes_root

if TYPE_CHECKING:
    import torch
    from diffusers import ControlNetModel, StableDiffusionXLPipeline, UNet2DConditionModel

_SCHEDULERS = ("euler", "dpmpp_2m", "ddim")
_DTYPES = ("float32", "float16", "bfloat16")
_COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def load_pipeline(
    source: ModelSource | str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = "float32",
    scheduler: str = "euler",
    num_threads: int | None = None,
) -> StableDiffusionXLPipeline:
    """Load a model as the stock pipeline class, ready to serve.

    Args:
        source: What `resolve_model` returned, or its argument.
        device: Where it will run, such as ``cpu`` or ``cuda:0``.
        dtype: Type of all weights and activations: float32, float16 or bfloat16.
        scheduler: ``euler``, ``dpmpp_2m`` or ``ddim``; made from the model's own scheduler config.
        num_threads: Intra-op threads for the whole process; None leaves them as they are.

    Raises:
        ModelError: The model is missing, damaged, offline or not an SDXL; the message says what to do.
        ConfigError: The device, dtype or scheduler is not one that exists here.
    """
    import torch

    if not isinstance(source, ModelSource):
        source = resolve_model(source)
    target, weights_dtype = find_device(device), find_dtype(dtype)
    if scheduler not in _SCHEDULERS:
        raise ConfigError.for_field("scheduler", scheduler, ", ".join(_SCHEDULERS))
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    with quiet_libraries():
        pipeline = _load(source, target, weights_dtype)
        _check_whole(source.name, pipeline)
        pipeline.scheduler = make_scheduler(scheduler, pipeline.scheduler.config)
        try:
            pipeline.to(target)
        except RuntimeError as error:  # out of memory
            raise ModelError(f"model {source.name} does not fit on {target}: {cause(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_controlnet(
    folder: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype | str = "float32"
) -> ControlNetModel:
    """Load a diffusers ControlNet folder as the stock class.

    Raises:
        AdapterError: The folder is missing, damaged or holds something else; the message names the file.
        ConfigError: The device or dtype is not one that exists here.
    """
    folder = Path(folder)
    target, weights_dtype = find_device(device), find_dtype(dtype)
    try:
        variant = check_controlnet_folder(folder)
        recipe = read_recipe(folder)
        if recipe is not None:
            return recipe.build(device=target, dtype=weights_dtype)
    except ModelError as error:
        raise AdapterError(error.message) from error
    with quiet_libraries():
        from diffusers import ControlNetModel

        try:
            controlnet: ControlNetModel = ControlNetModel.from_pretrained(
                folder, dtype=weights_dtype, local_files_only=True, use_safetensors=True, variant=variant
            )
            check_weight_keys(folder, set(controlnet.state_dict()))
            controlnet.to(target)
        except ModelError as error:
            raise AdapterError(error.message) from error
        except Exception as error:  # whatever the library says about a folder that it cannot read
            raise AdapterError(f"ControlNet {folder} cannot be loaded: {cause(error)}") from error
    controlnet.eval()
    return controlnet


def check_controlnet_fits(controlnet: ControlNetModel, unet: UNet2DConditionModel, name: str) -> None:
    """Check that a ControlNet was made for the base model's shapes.

    Raises:
        AdapterError: It was made for another base; the message says which number differs.
    """
    for field in ("cross_attention_dim", "block_out_channels", "layers_per_block", "down_block_types"):
        own, base = controlnet.config[field], unet.config[field]
        own, base = (tuple(value) if isinstance(value, list) else value for value in (own, base))
        if own != base:
            raise AdapterError(
                f"ControlNet {name} is for another base model: its {field} is {own}, the base's {base}"
            )


def make_scheduler(name: str, config: Any) -> Any:
    """Return a new scheduler by name, with the noise schedule of a model's own scheduler config.

    Raises:
        ConfigError: There is no scheduler of that name.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

    if name == "euler":
        return EulerDiscreteScheduler.from_config(config)
    if name == "dpmpp_2m":
        return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++", solver_order=2)
    if name == "ddim":
        # latents are no pixels: DDIM's default to clip its prediction to [-1, 1] is for those
        return DDIMScheduler.from_config(config, clip_sample=False, set_alpha_to_one=False)
    raise ConfigError.for_field("scheduler", name, ", ".join(_SCHEDULERS))


def find_device(device: torch.device | str) -> torch.device:
    """Return a torch device that exists on this machine.

    Raises:
        ConfigError: It does not.
    """
    import torch

    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        count = torch.cuda.device_count()
        allowed = "cpu" if count == 0 else f"cpu or cuda:0 to cuda:{count - 1}"
        raise ConfigError.for_field("device", str(device), f"a device of this machine ({allowed})") from error
    return found


def find_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """Return a torch dtype by name.

    Raises:
        ConfigError: It is not one that models run in.
    """
    import torch

    found: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPES}
    if dtype in found:
        return found[str(dtype)]
    if dtype in found.values() and isinstance(dtype, torch.dtype):
        return dtype
    raise ConfigError.for_field("dtype", str(dtype), ", ".join(_DTYPES))


def _load(source: ModelSource, device: torch.device, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    if source.kind == "preset":
        place = device if find_preset(source.name).is_large else "cpu"
        return build_preset(source.name, device=place, dtype=dtype)
    if source.kind == "hub" or source.path is None:
        return _load_hub(source.name, dtype)
    if source.kind == "file":
        return _load_file(source.path, dtype)
    if source.kind == "embedded":
        verify_manifest(shapes_root())
    return _load_folder(source.path, dtype)


def _load_folder(folder: Path, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    from diffusers import StableDiffusionXLPipeline

    variant = check_pipeline_folder(folder)
    try:
        pipeline: StableDiffusionXLPipeline = StableDiffusionXLPipeline.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            variant=variant,
            add_watermarker=False,
        )
    except Exception as error:  # whatever the library says about a folder that it cannot read
        raise ModelError(f"model {folder} cannot be loaded: {cause(error)}") from error
    for component in _COMPONENTS:
        check_weight_keys(folder / component, set(getattr(pipeline, component).state_dict()))
    return pipeline


def _load_file(file: Path, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    from diffusers import StableDiffusionXLPipeline

    check_single_file(file)
    config = config_beside(file)
    try:
        pipeline: StableDiffusionXLPipeline = StableDiffusionXLPipeline.from_single_file(
            str(file), dtype=dtype, config=config or SDXL_REPOSITORY, local_files_only=config is not None
        )
    except Exception as error:  # whatever the library or the network says
        advice = (
            f" Its configs and tokenizers come from the hub ({SDXL_REPOSITORY}) the first time; without a "
            f"network, put a diffusers folder that has them (weights not needed) at {file.with_suffix('')}"
        )
        advice = "" if config else advice
        raise ModelError(f"single-file model {file} cannot be loaded: {cause(error)}.{advice}") from error
    return pipeline


def _load_hub(name: str, dtype: torch.dtype) -> StableDiffusionXLPipeline:
    from diffusers import StableDiffusionXLPipeline

    fetch_hub_index(name)
    try:
        pipeline: StableDiffusionXLPipeline = StableDiffusionXLPipeline.from_pretrained(
            name, dtype=dtype, use_safetensors=True, add_watermarker=False
        )
    except Exception as error:  # whatever the library or the network says
        raise ModelError(f"hub model {name} cannot be loaded: {cause(error)}") from error
    return pipeline


def _check_whole(name: str, pipeline: StableDiffusionXLPipeline) -> None:
    for component in _COMPONENTS:
        module = getattr(pipeline, component)
        missing = next((key for key, parameter in module.named_parameters() if parameter.is_meta), None)
        if missing:
            raise ModelError(f"model {name}: {component} has no weight {missing}, which its config asks for")
