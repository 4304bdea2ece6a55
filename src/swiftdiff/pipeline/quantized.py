"""Multiplies by 8-bit copies of weights (torchao's), beside the weights that LoRAs are patched into.

The copies are renewed in place when weights were patched, so captured graphs see LoRAs and nothing is
captured again. Memory is not saved, for LoRAs need the weights at full precision; time is, where a GPU
multiplies 8-bit numbers faster. Pictures change: this is an approximation.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import nn

from swiftdiff.errors import ConfigError

Part = TypeVar("Part", bound=nn.Module)
Precision = Literal["int8", "float8"]

_MIN_SIDE = 16  # of weights that 8-bit products exist for, and a multiple of


def quantized(part: Part, precision: Precision) -> Part:
    """Return a module that computes what ``part`` does with 8-bit copies of weights.

    They are those of its transformer blocks' linear layers; others have so few rows that 8-bit products are
    slow or lacking. Activations are rounded too, as they come. `QuantizedCopies` renews the copies.

    Args:
        part: A network, or a part of one.
        precision: ``int8``, or ``float8`` for GPUs from compute capability 8.9 on.

    Raises:
        ConfigError: torchao is not installed or too old, or the device has no such products.
    """
    configuration = _configuration(precision)
    weights = [*part.parameters(), *part.buffers()]
    twin = copy.deepcopy(part, {id(weight): weight for weight in weights})
    for block in list(twin.modules()):
        if isinstance(block, BasicTransformerBlock):
            try:
                _replace_layers(block, configuration)
            except (AssertionError, RuntimeError) as error:  # what torchao says of a device
                raise ConfigError(f"quantized_weights cannot be {precision!r} here: {error}") from error
    return twin


class QuantizedCopies:
    """The 8-bit copies that a module of `quantized` computes with.

    Args:
        twin: What `quantized` returned; nothing is renewed in another module.
    """

    def __init__(self, twin: nn.Module) -> None:
        self._layers = [module for module in twin.modules() if isinstance(module, _QuantizedLinear)]

    @property
    def num_bytes(self) -> int:
        """Bytes of the copies."""
        return sum(part.nbytes for layer in self._layers for part in _parts(layer.rounded))

    def renew(self) -> None:
        """Round weights again that changed since. Nobody may compute with the module meanwhile."""
        for layer in self._layers:
            if layer.is_stale():
                layer.renew()


class _QuantizedLinear(nn.Module):
    """A linear layer that multiplies by a copy of its weight."""

    def __init__(self, stock: nn.Linear, configuration: Any) -> None:
        super().__init__()
        self.weight, self.bias = stock.weight, stock.bias
        self._configuration = configuration
        self.rounded = self._round()
        self._version = self.weight._version

    def is_stale(self) -> bool:
        return self._version != self.weight._version

    def renew(self) -> None:
        _overwrite(self.rounded, self._round())
        self._version = self.weight._version

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.rounded, self.bias)

    def _round(self) -> torch.Tensor:
        outputs, inputs = self.weight.shape
        shell = nn.Linear(inputs, outputs, bias=False, device="meta")
        shell.weight = nn.Parameter(self.weight.detach(), requires_grad=False)
        _torchao().quantize_(shell, self._configuration)
        return shell.weight.detach()


def _replace_layers(block: Any, configuration: Any) -> None:
    for module in list(block.modules()):
        for name, child in module.named_children():
            of_prompt = module is block.attn2 and name in ("to_k", "to_v")  # computed once for a request
            fits = type(child) is nn.Linear and not any(side % _MIN_SIDE for side in child.weight.shape)
            if fits and not of_prompt:
                setattr(module, name, _QuantizedLinear(child, configuration))


def _overwrite(there: Any, new: Any) -> None:
    """Write a quantized tensor's parts over those of another, in place: graphs know their addresses."""
    for old_part, new_part in zip(_parts(there), _parts(new), strict=True):
        old_part.copy_(new_part)


def _parts(tensor: Any) -> Iterator[torch.Tensor]:
    """Return the plain tensors that a quantized one is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts(getattr(tensor, name))


def _configuration(precision: Precision) -> Any:
    try:
        if precision == "int8":
            return _torchao().Int8DynamicActivationInt8WeightConfig()
        return _torchao().Float8DynamicActivationFloat8WeightConfig()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"quantized_weights is {precision!r}, but torchao is not installed, or too old: "
            "pip install 'swiftdiff[quantized]', or leave quantized_weights out"
        ) from error


def _torchao() -> Any:
    return importlib.import_module("torchao.quantization")
