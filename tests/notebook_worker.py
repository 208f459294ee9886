"""What a notebook cell would do: ``python notebook_worker.py FOLDER`` trains on two processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from accelerate import notebook_launcher


def train(folder: str) -> None:
    """Train as the only process would with twice the batch; the first process writes its log."""
    # Imported here: processes are forked, and one that has used torch's threads may hang.
    import torch
    from worker import SHARED, trainer_into

    torch.set_num_threads(1)
    trainer = trainer_into(Path(folder), "ce", per_device_train_batch_size=2, **SHARED)  # type: ignore[arg-type]
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    if trainer.is_world_process_zero():
        (Path(folder) / "log.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    notebook_launcher(train, (sys.argv[1],), num_processes=2)
