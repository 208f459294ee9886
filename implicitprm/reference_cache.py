"""Log-probabilities of a reference model on disk, found again by content.

Many policies are scored against one reference, on the same rows. An entry's key is a hash of the
model (its weights, their types and its configuration) and of the tokens with the start of the
response; its value is the float32 log-probabilities of the response tokens. Another model, another
type or one other token is another entry, whatever the model's folder is called.

SQLite keeps the entries: several processes may use one folder, and an entry that was half written
when a process was killed is not there. Each value carries a hash of itself and of its key: what
the disk has changed is computed anew. A score from the cache was computed in another batch: it
agrees with a fresh one to 1e-5 per token in float32, and as batches of that type do in half
precision.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from implicitprm.logprobs import score_logps
from implicitprm.steps import EncodedSolution

#: In the folder of the cache.
DATABASE = "reference_logps.sqlite3"
#: Seconds to wait for another process that is writing.
PATIENCE = 60.0


class ReferenceCache:
    """The log-probabilities of ``model`` in ``folder``, which is made if it is not there.

    Raises ValueError, naming the file, where it is damaged or no database.
    """

    def __init__(self, folder: str | Path, model: PreTrainedModel):
        self.path = Path(folder) / DATABASE
        self.model = model
        self._fingerprint = _fingerprint(model)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._database() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS logps"
                " (key BLOB PRIMARY KEY, value BLOB NOT NULL, seal BLOB NOT NULL)"
            )

    def score_logps(
        self,
        solutions: Sequence[EncodedSolution],
        pad_token_id: int | None,
        batch_size: int,
        description: str,
    ) -> list[Tensor]:
        """As :func:`implicitprm.logprobs.score_logps`, computing only what is not there yet."""
        keys = [self._key(solution) for solution in solutions]
        known = self._read(keys, [len(s.input_ids) - s.response_start for s in solutions])
        missing = {key: s for key, s in zip(keys, solutions, strict=True) if key not in known}
        computed = score_logps(
            self.model, list(missing.values()), pad_token_id, batch_size, description
        )
        fresh = dict(zip(missing, computed, strict=True))
        self._write(fresh)
        return [fresh[key] if key in fresh else known[key] for key in keys]

    def _key(self, solution: EncodedSolution) -> bytes:
        numbers = np.array([solution.response_start, *solution.input_ids], dtype="<i8")
        return hashlib.sha256(self._fingerprint + numbers.tobytes()).digest()

    def _read(self, keys: Sequence[bytes], lengths: Sequence[int]) -> dict[bytes, Tensor]:
        found = {}
        with self._database() as database:
            for key, length in zip(keys, lengths, strict=True):
                query = database.execute("SELECT value, seal FROM logps WHERE key = ?", (key,))
                for value, seal in query:
                    if seal == _seal(key, value) and len(value) == 4 * length:
                        found[key] = torch.from_numpy(np.frombuffer(value, "<f4").copy())
        return found

    def _write(self, entries: dict[bytes, Tensor]) -> None:
        rows = []
        for key, logps in entries.items():
            value = logps.float().numpy().astype("<f4").tobytes()
            rows.append((key, value, _seal(key, value)))
        with self._database() as database:
            database.executemany("INSERT OR REPLACE INTO logps VALUES (?, ?, ?)", rows)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection; its transaction is kept if the block ends well, and undone if not."""
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as connection, connection:
                yield connection
        except sqlite3.OperationalError as error:  # locked for too long, no room, no permission
            raise OSError(f"the cache {self.path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"the cache {self.path} is damaged ({error}): delete it; what was in it is "
                "computed anew"
            ) from error


def _fingerprint(model: PreTrainedModel) -> bytes:
    """A hash of what decides a model's log-probabilities: configuration, adapters, weights, types.

    Its name, and the version of transformers that wrote it, are no part of it.
    """
    wrapper: Any = model
    config = wrapper.config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    adapters = {n: a.to_dict() for n, a in getattr(wrapper, "peft_config", {}).items()}
    content = hashlib.sha256(_as_json([config, adapters]))
    for name, weight in sorted(model.state_dict().items()):
        content.update(_as_json([name, str(weight.dtype), list(weight.shape)]))
        content.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return content.digest()


def _seal(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + value).digest()


def _as_json(value: Any) -> bytes:
    def plain(other: Any) -> Any:
        return sorted(other) if isinstance(other, set) else str(other)

    return json.dumps(value, sort_keys=True, default=plain).encode()
