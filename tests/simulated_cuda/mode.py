"""What each PyTorch function does to tensors of a simulated device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from tests.simulated_cuda.machine import (
    Machine,
    add_transfer,
    caller,
    check_host_access,
    gpu_index,
    is_pinned,
    pin,
    place,
)

Tensor = torch.Tensor
HOST_READS = frozenset(
    ("item", "__bool__", "__int__", "__float__", "__index__", "__complex__", "tolist")
)
"""Methods that copy values to the host and wait for them."""
DATA_DEPENDENT = frozenset(
    ("nonzero", "masked_select", "unique", "unique_consecutive", "equal", "allclose", "argwhere")
)
"""Functions whose result's shape, or whose answer, the host has to wait for."""
DESCRIBING = frozenset(
    [
        *("size", "dim", "stride", "numel", "nelement", "element_size", "storage_offset"),
        *("data_ptr", "is_contiguous", "is_floating_point", "is_complex", "untyped_storage"),
        *("__len__", "__hash__", "__get__", "__set__", "requires_grad_", "detach", "type_as"),
        *("view", "reshape", "narrow", "unsqueeze", "squeeze", "expand", "chunk", "split"),
        *("transpose", "permute", "__getitem__", "is_pinned", "get_device", "pin_memory"),
        "record_stream",
    ]
)
"""What reads no values of a host tensor, so that a copy to it may still run."""
MIXES_DEVICES = frozenset(
    [
        *("copy_", "type_as", "__getitem__", "__setitem__", "index_put_", "index_put"),
        *("set_data", "swap_tensors", "_has_compatible_shallow_copy_type", "__set__"),
        "is_same_size",
    ]
)
"""Functions that PyTorch lets work on tensors of two devices."""


class SimulatedCudaMode(TorchFunctionMode):
    """Tensors stay in host memory but say that they are on ``cuda:N``, and are held to its rules.

    A mode belongs to one thread; several may share a machine.
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", str(func))
        tensor = args[0] if args and isinstance(args[0], Tensor) else None
        if tensor is not None:
            handler = self._handler(func, name)
            if handler is not None:
                return handler(func, tensor, args, kwargs)
        if "device" in kwargs or kwargs.get("pin_memory"):
            return self._create(func, args, kwargs)
        return self._compute(func, name, args, kwargs)

    def _handler(self, func: Callable[..., Any], name: str) -> Callable[..., Any] | None:
        """The method for a function of one tensor that behaves differently on a device."""
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return self._device
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return self._is_cuda
        if func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return self._is_cpu
        if name in HOST_READS:
            return self._read
        return {
            "is_pinned": self._is_pinned,
            "get_device": self._get_device,
            "pin_memory": self._pin_memory,
            "record_stream": self._record_stream,
            "numpy": self._numpy,
            "__array__": self._numpy,
            "cuda": self._cuda,
            "cpu": self._cpu,
            "to": self._to,
            "copy_": self._copy,
        }.get(name)

    def _device(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> torch.device:
        index = gpu_index(tensor)
        if index is None:
            return func(*args)  # type: ignore[no-any-return]
        return torch.device("cuda", index)

    def _is_cuda(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> bool:
        return gpu_index(tensor) is not None

    def _is_cpu(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> bool:
        return gpu_index(tensor) is None

    def _is_pinned(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> bool:
        return is_pinned(tensor)

    def _get_device(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> int:
        index = gpu_index(tensor)
        return -1 if index is None else index

    def _record_stream(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> None:
        assert gpu_index(tensor) is not None, "record_stream is for tensors of a device"

    def _pin_memory(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        if gpu_index(tensor) is not None:
            raise RuntimeError(
                "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
            )
        if is_pinned(tensor):
            return tensor
        copy = tensor.clone()
        pin(copy)
        return copy

    def _numpy(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Any:
        if gpu_index(tensor) is not None:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the "
                "tensor to host memory first."
            )
        check_host_access(tensor, "numpy", writes=False)
        return func(*args, **kwargs)

    def _read(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Any:
        self._wait_for(tensor, getattr(func, "__name__", "read"))
        check_host_access(tensor, "read", writes=False)
        return func(*args, **kwargs)

    def _cuda(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        device = args[1] if len(args) > 1 else kwargs.get("device")
        index = self.machine.index_of(device)
        blocking = not kwargs.get("non_blocking", False)
        return self._moved(tensor, index, blocking=blocking)

    def _cpu(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        if gpu_index(tensor) is None:
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        return self._moved(tensor, None, blocking=True)

    def _to(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        """``Tensor.to``: the type as PyTorch converts it, the device by our own rules."""
        blocking = not kwargs.pop("non_blocking", False)
        target = gpu_index(tensor)
        rest = []
        for argument in args[1:]:
            if isinstance(argument, bool):
                # Positional ``non_blocking`` or ``copy``: a copy gives the same values.
                continue
            if isinstance(argument, (str, torch.device, int)):
                target = self._index_or_host(argument)
            elif isinstance(argument, Tensor):
                target = gpu_index(argument)
                rest.append(argument.dtype)
            else:
                rest.append(argument)
        if kwargs.get("device") is not None:
            target = self._index_or_host(kwargs["device"])
        moved = tensor
        if tensor.is_meta or _names_meta(args[1:], kwargs):
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        kwargs.pop("device", None)
        if target != gpu_index(tensor):
            moved = self._moved(tensor, target, blocking=blocking)
        if not rest and not kwargs:
            return moved
        converted: Tensor = func(moved, *rest, **kwargs)
        if target is not None:
            self._place(converted, target)
        return converted

    def _copy(self, func: Any, tensor: Tensor, args: Any, kwargs: Any) -> Tensor:
        """``tensor.copy_(source)``: within a device, or between a device and the host."""
        source = args[1]
        blocking = not (kwargs.pop("non_blocking", False) or any(args[2:]))
        check_host_access(tensor, "copy_", writes=True)
        if gpu_index(source) is None:
            check_host_access(source, "copy_", writes=False)
        tensor.copy_(source, **kwargs)
        self._account_for_copy(source, tensor, blocking=blocking)
        return tensor

    def _create(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """A function that makes tensors on a device, or pinned ones."""
        name = getattr(func, "__name__", "")
        device = kwargs.get("device")
        index = None if device is None else self._index_or_host(device)
        pinned = bool(kwargs.pop("pin_memory", False))
        if index is not None:
            kwargs["device"] = "cpu"
        on_device = [tensor for tensor in _tensors(args) if gpu_index(tensor) is not None]
        result = func(*args, **kwargs)
        if device is None and on_device:
            # ``empty_like(x)`` and its kin stay where ``x`` is.
            index = gpu_index(on_device[0])
        for made in _tensors(result):
            if pinned:
                pin(made)
            if index is not None:
                assert name != "pin_memory"
                self._place(made, index)
        return result

    def _compute(
        self, func: Callable[..., Any], name: str, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        tensors = [*_tensors(args), *_tensors(kwargs)]
        indices = {gpu_index(tensor) for tensor in tensors} - {None}
        if not indices:
            if name not in DESCRIBING:
                writes = name.endswith("_") and not name.endswith("__") or name == "__setitem__"
                for tensor in tensors:
                    check_host_access(tensor, name, writes=writes)
            return func(*args, **kwargs)
        index = indices.pop()
        assert index is not None
        if indices:
            raise _two_devices(name, tensors)
        if name not in MIXES_DEVICES:
            for tensor in tensors:
                if gpu_index(tensor) is None and tensor.dim() > 0 and not name.startswith("_"):
                    raise _two_devices(name, tensors)
        if name in DATA_DEPENDENT or _selects_by_mask(name, args):
            self._wait_for(args[0], name)
        result = func(*args, **kwargs)
        if name in DESCRIBING and not isinstance(result, (Tensor, tuple, list)):
            return result
        self.machine.gpus[index].launched += 1
        for made in _tensors(result):
            self._place(made, index)
        return result

    def _place(self, tensor: Tensor, index: int) -> None:
        place(tensor, self.machine.gpus[index])

    def _moved(self, tensor: Tensor, index: int | None, *, blocking: bool) -> Tensor:
        """A copy on the device ``index``, or on the host for None."""
        if index is None and gpu_index(tensor) is None:
            return tensor
        if index is not None and gpu_index(tensor) == index:
            return tensor
        if gpu_index(tensor) is None:
            check_host_access(tensor, "to", writes=False)
        copy = tensor.detach().clone()
        if index is not None:
            self._place(copy, index)
        elif not blocking:
            # PyTorch copies to the host asynchronously through pinned memory.
            pin(copy)
        self._account_for_copy(tensor, copy, blocking=blocking)
        return copy

    def _account_for_copy(self, source: Tensor, target: Tensor, *, blocking: bool) -> None:
        """Count the wait, or remember the copy as running."""
        from_gpu = gpu_index(source)
        to_gpu = gpu_index(target)
        if from_gpu == to_gpu:
            if from_gpu is not None:
                self.machine.gpus[from_gpu].launched += 1
            return
        gpu = self.machine.gpus[to_gpu if from_gpu is None else from_gpu]  # type: ignore[index]
        gpu.launched += 1
        host = source if from_gpu is None else target
        if from_gpu is not None and to_gpu is not None:
            return
        if blocking:
            if from_gpu is not None:
                self._wait_for(source, "copy to the host")
            return
        if not is_pinned(host):
            self.machine.slow_copies[f"copy of unpinned memory{caller()}"] += 1
            gpu.wait()
            return
        add_transfer(host, gpu, writes_host=from_gpu is not None)

    def _wait_for(self, tensor: Tensor, name: str) -> None:
        """The host waits for the device of the tensor, without having said so."""
        index = gpu_index(tensor)
        if index is None:
            return
        self.machine.waits[f"{name}{caller()}"] += 1
        self.machine.gpus[index].wait()

    def _index_or_host(self, device: torch.device | str | int) -> int | None:
        if isinstance(device, int):
            return self.machine.index_of(device)
        if torch.device(device).type == "cuda":
            return self.machine.index_of(device)
        return None


def _tensors(values: Any) -> Iterator[Tensor]:
    """All tensors in arguments or results, however nested."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)


def _selects_by_mask(name: str, args: Any) -> bool:
    """Whether the shape of ``tensor[mask]`` depends on values that the host has to wait for."""
    if name != "__getitem__":
        return False
    return any(tensor.dtype == torch.bool for tensor in _tensors(args[1]))


def _names_meta(arguments: Any, options: dict[str, Any]) -> bool:
    """Whether the target is the meta device, whose tensors have no values."""
    targets = [*arguments, options.get("device")]
    return any(isinstance(at, (str, torch.device)) and str(at) == "meta" for at in targets)


def _two_devices(name: str, tensors: list[Tensor]) -> RuntimeError:
    shown = []
    for tensor in tensors:
        index = gpu_index(tensor)
        where = "cpu" if index is None else f"cuda:{index}"
        shown.append(f"{where} {tuple(tensor.shape)}")
    return RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices in "
        f"{name}: {', '.join(shown)}"
    )
