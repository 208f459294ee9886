"""A device that is not there: tensors that compute on the CPU and say that they are elsewhere.

Mixing them with tensors of the CPU is the error that CUDA would raise, and so is reading one with
``numpy()``. What waits for the device (``item()``, ``tolist()``, ``bool()``) is counted. So code
that forgets to move a tensor, or asks for a value a thousand times, is found without a GPU.
Attention must be ``eager``: fused kernels are chosen by the device.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("pretend")
DEVICE = torch.device("pretend", 0)
ATEN = torch.ops.aten
#: These take tensors of several devices on CUDA too.
MIXING = {ATEN.copy_.default, ATEN._to_copy.default, ATEN.index.Tensor}
#: These wait until the device has computed their argument.
WAITING = {
    ATEN._local_scalar_dense.default,
    ATEN.is_nonzero.default,
    ATEN.item.default,
    ATEN.nonzero.default,
    ATEN.equal.default,
}

WAITS: Counter[str] = Counter()
#: The devices for which generators of random numbers were made.
GENERATORS: list[torch.device] = []


class OnDevice(torch.Tensor):
    """A tensor of the CPU, ``held``, that says it is on DEVICE."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnDevice:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            requires_grad=held.requires_grad,
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        WAITS["tolist"] += 1
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operator on what is inside, and say where its result is."""
    leaves = tree_leaves((args, kwargs))
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    there = [leaf for leaf in tensors if isinstance(leaf, OnDevice)]
    strangers = [leaf for leaf in tensors if not isinstance(leaf, OnDevice) and leaf.ndim]
    if there and strangers and func not in MIXING:
        raise RuntimeError(f"{func}: expected all tensors to be on one device, found CPU's as well")
    if there and func in WAITING:
        WAITS[str(func)] += 1
    asked = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
    first = isinstance(args[0], OnDevice) if args else False
    stays = first if func is ATEN.copy_.default else bool(there)
    to_device = stays if asked is None else asked.type == DEVICE.type
    result = func(*tree_map(_inside, args), **tree_map(_inside, kwargs))
    # What was changed in place stays itself.
    known = {id(leaf.held): leaf for leaf in there}

    def put(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not to_device:
            return leaf
        return known[id(leaf)] if id(leaf) in known else OnDevice(leaf)

    return tree_map(put, result)


def _inside(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.held if isinstance(leaf, OnDevice) else leaf


def _fallback(func: Any, *args: Any, **kwargs: Any) -> Any:
    """Operators without an argument on the device: they make tensors there."""
    return compute(func, args, kwargs)


class _Generator(torch.Generator):
    """Makes those of the CPU; torch can make none of another device in Python."""

    def __new__(cls, device: Any = "cpu") -> Any:
        GENERATORS.append(torch.device(device))
        return GENERATOR("cpu")


def _tensor(data: Any, *, device: Any = None, **how: Any) -> torch.Tensor:
    """torch.tensor, which asks for its device below the level at which this one exists."""
    made = TENSOR(data, **how)
    return made if device is None else made.to(device)


TENSOR, GENERATOR = torch.tensor, torch.Generator
torch.tensor = _tensor  # type: ignore[assignment]
torch.Generator = _Generator  # type: ignore[misc]
LIBRARY = torch.library.Library("_", "IMPL")
LIBRARY.fallback(_fallback, "PrivateUse1")
