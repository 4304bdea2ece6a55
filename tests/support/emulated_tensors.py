"""Tensors that say they are on a GPU, and compute on the CPU.

What is refused is what CUDA refuses: operations on tensors of several devices. A number of the host (a tensor
without dimensions) may take part, and so may a host's indices, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from emulated_streams import Machine, Memory, Queue
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
_TAKE_HOST_INDICES = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index)
_COMPOSED = (aten.to, aten.pin_memory, aten.type_as, aten.item)
_MATH_ATTENTION = 0
#: Return numbers that are known without asking the device.
_KNOWN = (aten.is_same_size, aten.is_pinned, aten._fused_sdp_choice)


class CudaTensor(torch.Tensor):
    """A tensor of a GPU."""

    _real: torch.Tensor
    _memory: Memory
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: Any, real: torch.Tensor, device: torch.device, memory: Memory) -> CudaTensor:
        self: CudaTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            device=device,
        )
        self._real = real
        self._memory = memory
        return self

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        tensor = next(leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, CudaTensor))
        return tensor._memory.machine.dispatch(func, args, kwargs or {})

    @property
    def data(self) -> torch.Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: CudaTensor) -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]  # sizes and the like
        self._real, self._memory = value._real, value._memory

    def record_stream(self, stream: Any) -> None:
        self._memory.recorded.add(stream.queue.number)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        copy: Any = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __repr__(self) -> str:  # type: ignore[override]
        return f"CudaTensor({self._real!r}, {self.device})"


class EmulationMode(TorchDispatchMode):
    """Sees all that the thread computes."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        if machine.dispatch is None:
            machine.dispatch = Dispatch(machine)
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.machine.dispatch(func, args, kwargs or {})


class Dispatch:
    """Carries out one operation."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.pinned = machine.pinned
        self._own: dict[Any, Callable[..., Any]] = {
            aten.copy_: self._copy,
            aten._foreach_copy_: self._copy_each,
            aten._to_copy: self._to_copy,
            aten.is_pinned: lambda tensor, device=None: self.pinned.find(tensor) is not None,
            aten._pin_memory: self._pin,
        }

    def __call__(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        packet = func.overloadpacket
        if packet in _COMPOSED:
            with EmulationMode(self.machine):
                return func.decompose(*args, **kwargs)
        own = self._own.get(packet)
        return self._compute(func, args, kwargs) if own is None else own(*args, **kwargs)

    def _compute(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        near = [leaf for leaf in leaves if isinstance(leaf, CudaTensor)]
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type == "cuda":
            device = self.machine.device(asked)
        elif near and (asked is None or torch.device(asked).type == "cuda"):
            device = near[0].device
        else:
            return self._compute_on_host(func, args, kwargs, leaves)
        self._check_devices(func, near, leaves)
        if func.overloadpacket is aten._fused_sdp_choice:
            return _MATH_ATTENTION
        queue = self.machine.current(device)
        real_kwargs = {name: tree_map(_real, value) for name, value in kwargs.items()}
        if asked is not None:
            real_kwargs["device"] = "cpu"
        real_args = tree_map(_real, args)
        result = func(*real_args, **real_kwargs)
        written = list(_written(func, args, kwargs))
        wrapped, made = self._wrap(result, near, device, queue)
        scalars = [leaf for leaf in tree_leaves(result) if isinstance(leaf, (bool, int, float))]
        if made or written or scalars:
            uses = [(leaf._memory, *_span(leaf._real), _is_in(leaf, written)) for leaf in near]
            uses += [(leaf._memory, *_span(leaf._real), True) for leaf in made]
            uses = [use for use in uses if use[1] < use[2]]
            if queue.capture is None:
                self.machine.compute(queue, func.overloadpacket.__name__, uses)
            else:
                again = partial(func, *real_args, **real_kwargs)
                queue.capture.record(again, result, made, uses)
        if scalars and func.overloadpacket not in _KNOWN:
            self.machine.synchronize(self.machine.snapshot(queue))
        return wrapped

    def _compute_on_host(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: Sequence[Any]) -> Any:
        if any(isinstance(leaf, CudaTensor) for leaf in leaves):  # such as empty_like(x, device="cpu")
            args, kwargs = tree_map(_real, args), tree_map(_real, kwargs)
        if kwargs.get("pin_memory"):
            return self.pinned.add(func(*args, **{**kwargs, "pin_memory": False}))
        known = [(self.pinned.find(leaf), leaf) for leaf in leaves]
        shared = [(memory, leaf) for memory, leaf in known if memory is not None]
        if shared and not func.is_view:
            written = list(_written(func, args, kwargs))
            uses = [(memory, *_span(leaf), _is_in(leaf, written)) for memory, leaf in shared]
            self.machine.compute_on_host(func.overloadpacket.__name__, uses)
        return func(*args, **kwargs)

    def _check_devices(self, func: Any, near: Sequence[CudaTensor], leaves: Sequence[torch.Tensor]) -> None:
        devices = {str(tensor.device) for tensor in near}
        if func.overloadpacket not in _TAKE_HOST_INDICES:
            devices |= {"cpu" for leaf in leaves if leaf.device.type == "cpu" and leaf.dim() > 0}
        if len(devices) > 1:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"{' and '.join(sorted(devices))}! (when checking arguments of {func})"
            )

    def _wrap(
        self, result: Any, near: Sequence[CudaTensor], device: torch.device, queue: Queue
    ) -> tuple[Any, list[CudaTensor]]:
        """Return a result as tensors of the device, and those of them that have memory of their own."""
        same = {id(tensor._real): tensor for tensor in near}
        sources = {tensor._real.untyped_storage()._cdata: tensor for tensor in near}
        made: list[CudaTensor] = []

        def wrap(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            if id(value) in same:
                return same[id(value)]
            source = sources.get(value.untyped_storage()._cdata)
            if source is not None:
                return _view(source, value)
            made.append(CudaTensor(value, device, self.machine.allocate(queue)))
            sources[value.untyped_storage()._cdata] = made[-1]
            return made[-1]

        return tree_map(wrap, result), made

    def _to_copy(self, source: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        device = torch.device(kwargs.pop("device", None) or source.device)
        non_blocking = bool(kwargs.pop("non_blocking", False))
        pins = bool(kwargs.pop("pin_memory", False))
        real = aten._to_copy.default(_real(source), **kwargs, device=torch.device("cpu"))
        if device.type == "cuda":
            device = self.machine.device(device)
            queue = self.machine.current(device)
            target: torch.Tensor = CudaTensor(real, device, self.machine.allocate(queue))
            if queue.capture is not None:
                queue.capture.made.append(target)
        else:
            # Torch takes pinned memory for what it is asked not to wait for.
            is_pinned = pins or (isinstance(source, CudaTensor) and non_blocking)
            target = self.pinned.add(real) if is_pinned else real
        self._note_copy(target, source, non_blocking)
        return target

    def _pin(self, source: torch.Tensor, device: Any = None) -> torch.Tensor:
        pinned = torch.empty_strided(source.shape, source.stride(), dtype=source.dtype)
        return self._copy(self.pinned.add(pinned), source)

    def _copy_each(
        self, targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor], non_blocking: bool = False
    ) -> None:
        for target, source in zip(targets, sources, strict=True):
            self._copy(target, source, non_blocking)

    def _copy(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        to, from_ = _real(target), _real(source)
        to.copy_(from_)
        self._note_copy(target, source, non_blocking)
        return target

    def _note_copy(self, target: torch.Tensor, source: torch.Tensor, non_blocking: bool) -> None:
        machine = self.machine
        if not isinstance(target, CudaTensor) and not isinstance(source, CudaTensor):
            uses = [(self.pinned.find(tensor), tensor) for tensor in (target, source)]
            shared = [(memory, *_span(t), t is target) for memory, t in uses if memory is not None]
            if shared:
                machine.compute_on_host("copy_", shared)
            return
        if isinstance(target, CudaTensor) and isinstance(source, CudaTensor):
            self._note_copy_on_devices(target, source)
            return
        device_side = target if isinstance(target, CudaTensor) else source
        host_side = source if isinstance(target, CudaTensor) else target
        assert isinstance(device_side, CudaTensor)
        queue = machine.current(device_side.device)
        to_device = device_side is target
        memory = self.pinned.find(host_side)
        # Other host memory is read before the call returns, or written; and torch copies what has gaps first.
        is_async = non_blocking and memory is not None and _is_whole(host_side)
        uses = [(device_side._memory, *_span(device_side._real), to_device)]
        on_host = [] if memory is None else [(memory, *_span(host_side), not to_device)]
        if on_host and not is_async and to_device:
            machine.compute_on_host("copy_ to a device", on_host)
        waits = not non_blocking or (not to_device and not is_async)
        if queue.capture is not None and not is_async:
            waits = True  # which is refused
        self._queue_copy(queue, target, source, uses + (on_host if is_async else []))
        if waits and host_side.numel():
            machine.synchronize(machine.snapshot(queue))
        if on_host and not is_async and not to_device:
            machine.compute_on_host("copy_ from a device", on_host)

    def _note_copy_on_devices(self, target: CudaTensor, source: CudaTensor) -> None:
        """Torch copies on the source's stream, which waits for the target's, which waits for the copy."""
        machine = self.machine
        queue, targets = machine.current(source.device), machine.current(target.device)
        if queue is not targets:
            machine.wait(queue, machine.snapshot(targets))
        uses = [(target._memory, *_span(target._real), True), (source._memory, *_span(source._real), False)]
        self._queue_copy(queue, target, source, [use for use in uses if use[1] < use[2]])
        if queue is not targets:
            machine.wait(targets, machine.snapshot(queue))

    def _queue_copy(self, queue: Queue, target: torch.Tensor, source: torch.Tensor, uses: Any) -> None:
        if queue.capture is None:
            self.machine.compute(queue, "copy_", uses)
        else:
            queue.capture.record_copy(_real(target), _real(source), uses)


def note_host_read(machine: Machine, tensor: torch.Tensor) -> None:
    """Note that the host reads a tensor in a way that no operation shows."""
    memory = machine.pinned.find(tensor)
    if memory is not None:
        machine.compute_on_host("read", [(memory, *_span(tensor), False)])


def _view(source: CudaTensor, real: torch.Tensor) -> CudaTensor:
    """Return a view, which belongs to inference mode if its source does, whatever the mode is now."""
    if torch.is_inference_mode_enabled() == source.is_inference():
        return CudaTensor(real, source.device, source._memory)
    with torch.inference_mode(source.is_inference()):
        return CudaTensor(real, source.device, source._memory)


def _real(value: Any) -> Any:
    return value._real if isinstance(value, CudaTensor) else value


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """Return the first byte of its storage that a tensor uses, and the one after the last."""
    if tensor.numel() == 0:
        return 0, 0
    begin = tensor.storage_offset()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin * tensor.itemsize, (begin + last + 1) * tensor.itemsize


def _is_whole(tensor: torch.Tensor) -> bool:
    begin, end = _span(tensor)
    return end - begin == tensor.numel() * tensor.itemsize


def _is_in(tensor: torch.Tensor, others: Iterable[torch.Tensor]) -> bool:
    return any(tensor is other for other in others)


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            yield from (leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor))
