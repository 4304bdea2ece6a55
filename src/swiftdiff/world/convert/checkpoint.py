"""Opens a checkpoint without running code in it and without reading its weights into memory."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from swiftdiff.errors import ModelError
from swiftdiff.models.checkpoints import cause
from swiftdiff.models.integrity import read_safetensors_header
from swiftdiff.world.convert.keys import Shape

if TYPE_CHECKING:
    import torch

Weights = Literal["ema", "raw"]

# Where training puts its two sets of weights.
_SETS: Final[dict[Weights, tuple[str, ...]]] = {
    "ema": ("generator_ema",),
    "raw": ("generator", "model", "state_dict"),
}
_ASKED_FOR: Final = re.compile(r"GLOBAL (\S+)")  # in torch's complaint about a pickle


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        where: The file, for messages.
        shapes: Of its weights, by the checkpoint's own names.
        read: Reads one weight by that name.
        weights: Which set was taken: ``ema`` or ``raw``.
    """

    where: str
    shapes: dict[str, Shape]
    read: Callable[[str], torch.Tensor]
    weights: Weights


def open_checkpoint(path: Path, weights: Weights | None = None) -> Checkpoint:
    """Open a ``.pt`` file of Self-Forcing or CausVid, or its weights as ``.safetensors``.

    Pickles are read with ``weights_only=True``, so that nothing in them runs, and memory-mapped.

    Args:
        path: The file.
        weights: ``ema``: the average over training; ``raw``: its last step; None: the average if there is
            one.

    Raises:
        ModelError: The file is missing, truncated, holds code or no weights, or not the set asked for.
    """
    if not path.is_file():
        hint = "; name the file in it" if path.is_dir() else ""
        raise ModelError(f"there is no checkpoint file {path}{hint}")
    if path.suffix == ".safetensors":
        return _open_safetensors(path, weights)
    return choose_weights(_load(path), str(path), weights)


def choose_weights(content: object, where: str, weights: Weights | None = None) -> Checkpoint:
    """Return the set of weights in what a ``.pt`` file holds.

    Args:
        content: A state dict, or a dictionary that has one under ``generator_ema`` or ``generator``.
        where: The file, for messages.
        weights: As in `open_checkpoint`.

    Raises:
        ModelError: There is no such set, or something in it is no tensor.
    """
    import torch

    if not isinstance(content, Mapping):
        raise ModelError(f"{where} holds a {type(content).__name__}, but must hold weights by name")
    held: dict[Weights, tuple[str, Any]] = {}
    for kind, names in _SETS.items():
        name = next((name for name in names if isinstance(content.get(name), Mapping)), None)
        if name is not None:
            held[kind] = (name, content[name])
    if not held and content and all(isinstance(value, torch.Tensor) for value in content.values()):
        held["raw"] = ("the file itself", content)
    chosen = weights or ("ema" if "ema" in held else "raw")
    if chosen not in held:
        there = ", ".join(map(repr, list(content)[:5])) or "nothing"
        wanted = f"no {chosen} weights ({' or '.join(_SETS[chosen])})"
        raise ModelError(f"{where} holds {wanted}; it holds {there}")
    name, state = held[chosen]
    for key, value in state.items():
        if not isinstance(key, str):
            raise ModelError(f"{where}: {name} holds {key!r}, but must hold weights by name")
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"{where}: {key!r} in {name} is of type {type(value).__name__}, but must be a tensor"
            )
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    return Checkpoint(where, shapes, state.__getitem__, chosen)


def _load(path: Path) -> object:
    import pickle

    import torch

    try:
        with path.open("rb") as file:  # torch would complain of how it was asked to read
            if not zipfile.is_zipfile(file):
                raise ModelError(
                    f"{path} cannot be read: it is truncated, or no checkpoint of torch 1.6 or newer"
                )
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        asked_for = _ASKED_FOR.search(str(error))
        reason = cause(error) if asked_for is None else f"it asks for {asked_for[1]}"
        raise ModelError(
            f"{path} holds more than weights, or is no checkpoint: only weights are read from a pickle, "
            f"because others can run code ({reason})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: it is truncated, or damaged ({cause(error)})") from error


def _open_safetensors(path: Path, weights: Weights | None) -> Checkpoint:
    from safetensors import safe_open

    shapes = read_safetensors_header(path)
    kinds: dict[Weights, str] = {kind: f"{names[0]}." for kind, names in _SETS.items()}
    prefixed = {kind: [key for key in shapes if key.startswith(start)] for kind, start in kinds.items()}
    chosen: Weights = weights or ("ema" if prefixed["ema"] else "raw")
    keys = prefixed[chosen] or ([] if chosen == "ema" else [k for k in shapes if k not in prefixed["ema"]])
    if not keys:
        raise ModelError(f"{path} holds no {chosen} weights ({kinds[chosen]}…)")
    file: Any = safe_open(path, framework="pt")
    start = kinds["ema"] if chosen == "ema" else ""
    return Checkpoint(
        str(path),
        {key.removeprefix(start): shapes[key] for key in keys},
        lambda key: file.get_tensor(start + key),
        chosen,
    )
