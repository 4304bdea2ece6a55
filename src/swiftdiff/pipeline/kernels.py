"""Chooses faster kernels for the same arithmetic: on CPUs oneDNN's, with weights laid out as it wants them.

Stock torch computes float32 linear layers by MKL and small convolutions by im2col; where oneDNN has kernels
for the processor's widest vectors it is up to twice as fast, most of all on processors that MKL holds back.
The numbers differ from stock's by the rounding of sums in another order, about 1e-6 of the largest. On GPUs
one product computes the query, key and value of a self-attention layer.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from diffusers.models.activations import GEGLU, GELU
from diffusers.models.attention import BasicTransformerBlock
from torch import nn
from torch.nn import functional as F

from swiftdiff.pipeline.prompt_attention import is_plain_attention, split_heads

Part = TypeVar("Part", bound=nn.Module)
Multiply = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]

_TYPICAL_SIDE = 16  # of the feature maps that layouts are chosen for; others are computed from them as well
_MIN_ROWS = 16  # below, setting up a oneDNN kernel takes longer than the product

# TorchScript, for the tracer cannot record an operator that takes a list of optional numbers, and can record
# the call of a scripted function.
_SOURCE = """
def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

def activated(x: Tensor, weight: Tensor, bias: Optional[Tensor], approximate: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "gelu", [], approximate)

def gated(x: Tensor, value: Tensor, gate: Tensor, value_bias: Tensor, gate_bias: Tensor) -> Tensor:
    opened = torch.ops.mkldnn._linear_pointwise(x, gate, gate_bias, "gelu", [], "none")
    return torch.ops.mkldnn._linear_pointwise(x, opened, value, value_bias, "mul")

def convolve(
    x: Tensor, weight: Tensor, bias: Optional[Tensor],
    padding: List[int], stride: List[int], dilation: List[int], groups: int
) -> Tensor:
    return torch.ops.mkldnn._convolution_pointwise(
        x, weight, bias, padding, stride, dilation, groups, "none", [], ""
    )
"""


def tuned(part: Part, *, fixed: bool = False) -> Part:
    """Return a module that computes what ``part`` does by faster kernels, from the same weights.

    Convolutions have a copy of their weight in the kernel's own layout, which `PackedCopies` renews. Other
    weights are shared with ``part``, so what is patched there in place is seen at once; the query, key and
    value of a self-attention layer are moved into one piece of memory, for one product to compute the three.

    Args:
        part: On a GPU, or on the CPU in float32; anything else comes back as it is, as everything on the CPU
            does where torch was built without oneDNN.
        fixed: Its weights will never change: linear layers have copies too.
    """
    weights = [*part.parameters(), *part.buffers()]
    if all(weight.is_cuda for weight in weights):
        return with_joint_products(part)
    if not _has_onednn() or any(w.device.type != "cpu" or w.dtype != torch.float32 for w in weights):
        return part
    twin = twin_of(part)
    for module in twin.modules():
        _replace_parts(module, fixed)
    return twin


def twin_of(part: Part) -> Part:
    """Return a copy whose parameters and buffers are those of ``part``, not copies."""
    weights = [*part.parameters(), *part.buffers()]
    return copy.deepcopy(part, {id(weight): weight for weight in weights})


def with_joint_products(part: Part) -> Part:
    """Return a module that computes query, key and value of self-attention layers by one product.

    As `tuned` does; the weights are moved into one piece of memory, and are shared with ``part``.
    """
    twin = twin_of(part)
    for module in twin.modules():
        if isinstance(module, BasicTransformerBlock) and _is_self_attention(module.attn1):
            module.attn1 = _SelfAttention(module.attn1, fixed=False, multiply=F.linear)
    return twin


class PackedCopies:
    """The copies of weights that a tuned module computes with.

    Args:
        twin: What `tuned` returned; its weights must not have been made in inference mode.
    """

    def __init__(self, twin: nn.Module) -> None:
        self._convolutions = [module for module in twin.modules() if isinstance(module, _Conv2d)]

    def renew(self) -> bool:
        """Copy weights again that changed since; return whether there were any.

        Nobody may compute with the module meanwhile.
        """
        stale = [convolution for convolution in self._convolutions if convolution.is_stale()]
        for convolution in stale:
            convolution.pack()
        return bool(stale)


def packed_bytes(twin: nn.Module) -> int:
    """Return the bytes of the copies that a tuned module has."""
    return sum(buffer.nbytes for buffer in twin.buffers() if buffer.is_mkldnn)


class _Linear(nn.Linear):
    """A linear layer; ``packed`` is its weight or a copy of it in the kernel's layout."""

    packed: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if _num_rows(x) < _MIN_ROWS:
            return F.linear(x, self.weight, self.bias)
        return _linear(x, self.packed, self.bias)


class _Gelu(GELU):  # type: ignore[misc]  # diffusers is untyped
    """`GELU` with the activation inside its linear layer's kernel."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor
        if _num_rows(hidden_states) < _MIN_ROWS:
            output = super().forward(hidden_states)
        else:
            layer = self.proj
            output = _scripts().activated(hidden_states, layer.packed, layer.bias, self.approximate)
        return output


class _Conv2d(nn.Conv2d):
    """A convolution, channels last, with a copy of its weight in the kernel's layout."""

    packed: torch.Tensor

    def pack(self) -> None:
        """Copy the weight."""
        with torch.no_grad():
            size = [1, self.in_channels, _TYPICAL_SIDE, _TYPICAL_SIDE]
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            packed = reorder(self.weight.contiguous(), *self._settings(), size)
        self.register_buffer("packed", packed, persistent=False)
        # Torch counts how often a tensor is changed in place, but not for those made in inference mode.
        self._version_packed = None if self.weight.is_inference() else self.weight._version

    def is_stale(self) -> bool:
        """Tell whether the weight changed since it was copied."""
        return self._version_packed != self.weight._version

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = x.contiguous(memory_format=torch.channels_last)
        output: torch.Tensor = _scripts().convolve(last, self.packed, self.bias, *self._settings())
        return output

    def _settings(self) -> tuple[list[int], list[int], list[int], int]:
        assert not isinstance(self.padding, str)
        return list(self.padding), list(self.stride), list(self.dilation), self.groups


class _GatedGelu(nn.Module):
    """`GEGLU` with the gate's activation and the product inside the linear layers' kernels."""

    def __init__(self, stock: GEGLU, fixed: bool) -> None:
        super().__init__()
        value, gate = stock.proj.weight.detach().chunk(2)
        value_bias, gate_bias = stock.proj.bias.detach().chunk(2)
        self.register_buffer("value", _packed(value) if fixed else value)
        self.register_buffer("gate", _packed(gate) if fixed else gate)
        self.register_buffer("value_bias", value_bias)
        self.register_buffer("gate_bias", gate_bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        weights = (self.value, self.gate, self.value_bias, self.gate_bias)
        output: torch.Tensor = _scripts().gated(hidden_states, *weights)
        return output


class _SelfAttention(nn.Module):
    """Plain self-attention whose query, key and value come from one product."""

    qkv: torch.Tensor

    def __init__(self, stock: Any, fixed: bool, multiply: Multiply) -> None:
        super().__init__()
        self._multiply = multiply
        self.heads = stock.heads
        self.to_out = stock.to_out[0]
        together = in_a_row([stock.to_q.weight, stock.to_k.weight, stock.to_v.weight])
        self.register_buffer("qkv", _packed(together) if fixed else together)

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: None = None, attention_mask: None = None
    ) -> torch.Tensor:
        several = self._multiply(hidden_states, self.qkv, None).chunk(3, dim=-1)
        query, key, value = (split_heads(self, states) for states in several)
        output = F.scaled_dot_product_attention(query, key, value)
        projected: torch.Tensor = self.to_out(output.transpose(1, 2).flatten(2))
        return projected


def _replace_parts(module: nn.Module, fixed: bool) -> None:
    """Replace what a module is or holds by its faster kind; in a twin, which nobody else uses."""
    if type(module) is nn.Linear:
        module.__class__ = _Linear
        weight = module.weight.detach()
        module.register_buffer("packed", _packed(weight) if fixed else weight, persistent=False)
    elif type(module) is GELU and type(module.proj) is nn.Linear:
        module.__class__ = _Gelu
    elif type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        module.__class__ = _Conv2d
        assert isinstance(module, _Conv2d)
        module.pack()
    elif isinstance(module, BasicTransformerBlock) and _is_self_attention(module.attn1):
        module.attn1 = _SelfAttention(module.attn1, fixed, multiply=_linear)
    else:
        for name, child in module.named_children():
            if isinstance(child, GEGLU) and child.proj.bias is not None:
                setattr(module, name, _GatedGelu(child, fixed))


def _is_self_attention(layer: Any) -> bool:
    return (
        is_plain_attention(layer)
        and all(part.bias is None for part in (layer.to_q, layer.to_k, layer.to_v))
        and layer.to_q.weight.shape == layer.to_k.weight.shape == layer.to_v.weight.shape
    )


def in_a_row(weights: list[nn.Parameter]) -> torch.Tensor:
    """Move weights or biases of equal shape into one piece of memory, and return it as one."""
    together = torch.cat([weight.data for weight in weights])
    for weight, own in zip(weights, together.chunk(len(weights)), strict=True):
        weight.data = own
    return together


def _packed(weight: torch.Tensor) -> torch.Tensor:
    reorder = torch.ops.mkldnn._reorder_linear_weight
    packed: torch.Tensor = reorder(weight.contiguous(), _TYPICAL_SIDE**2)
    return packed


def _linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    output: torch.Tensor = _scripts().linear(x, weight, bias)
    return output


def _num_rows(x: torch.Tensor) -> int:
    # While tracing, sizes are tensors to the tracer: this makes them numbers, for the graph has one shape.
    return math.prod(int(side) for side in x.shape[:-1])


@functools.cache
def _scripts() -> Any:
    return torch.jit.CompilationUnit(_SOURCE)


@functools.cache
def _has_onednn() -> bool:
    """Tell whether this build of torch has the kernels: their names are not part of its public interface."""
    x, weight, bias = torch.ones(_MIN_ROWS, 16), torch.ones(16, 16), torch.ones(16)
    try:
        _linear(x, _packed(weight), None)
        _scripts().gated(x, weight, weight, bias, bias)
        _scripts().activated(x, weight, bias, "tanh")
        _replace_parts(nn.Conv2d(1, 1, 3), fixed=True)
    except (RuntimeError, AttributeError):
        return False
    return True
