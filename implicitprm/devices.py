"""Which processes and devices a run has, and in which precision it computes there: one policy.

Weights are put on the accelerator that is there; a CPU is used where there is none. Half precision
is for accelerators: on a CPU it has to be asked for, because it is slower there than float32.
"""

from __future__ import annotations

import psutil
import torch
from accelerate import PartialState


def processes() -> PartialState:
    """The processes of this run (``torchrun`` starts several), one device each.

    On a CPU accelerate sees one process only unless it is told that this is meant; and what it is
    told first is what stays.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def weights_dtype() -> str | torch.dtype:
    """The type to load weights in for scoring and sampling: the checkpoint's own, or float32."""
    return torch.float32 if processes().device.type == "cpu" else "auto"


def has_bf16() -> bool:
    """Is there a GPU that computes in bfloat16."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported()


def device_memory() -> int:
    """Bytes that are free on this process's device; processes on a CPU share what there is."""
    state = processes()
    if state.device.type == "cuda":
        return int(torch.cuda.mem_get_info(state.device)[0])
    return int(psutil.virtual_memory().available) // state.num_processes
