"""Where a training stands, on disk: written whole or not at all, the one before kept, nothing unpickled on reading."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from revbench.errors import UserError
from revbench.results.journal import write_atomically
from revbench.workload import Workload

CHECKPOINT_VERSION = 1


class Checkpoints:
    """The last two checkpoints of one training: ``<stem>.pt`` and ``<stem>.previous.pt``.

    Args:
        folder: made if it is not there.
        stem: of the files' names.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._newest = folder / f"{stem}.pt"
        self._previous = folder / f"{stem}.previous.pt"

    def save(self, workload: Workload, step: int) -> None:
        """Write the state after `step` steps: weights, buffers, optimizer, random generators.

        The order of the data and the learning rate are functions of seed and step (`revbench.training.order`,
        `revbench.recipes`), so the step says where they stand.

        Raises:
            UserError: it can't be written; what was there before is still there.
        """
        state: dict[str, Any] = {
            "version": CHECKPOINT_VERSION, "case_id": workload.case.id, "step": step,
            "model": workload.model.state_dict(), "optimizer": workload.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if workload.case.device.startswith("cuda") else [],
        }  # fmt: skip
        buffer = io.BytesIO()
        torch.save(state, buffer)
        try:
            if self._newest.exists():
                os.replace(self._newest, self._previous)
            write_atomically(self._newest, buffer.getvalue())
        except OSError as error:
            raise UserError(
                f"can't write the checkpoint {self._newest}: {error.strerror}; make room and resume"
            ) from error

    def restore(self, workload: Workload) -> tuple[int, str | None]:
        """Put a workload into the state of the newest checkpoint that can be read.

        Returns:
            The number of steps that were done (0 if there is no checkpoint), and a word if the newest could not be read
            and the one before was taken.

        Raises:
            UserError: it is of another case or version, or neither file can be read.
        """
        word = None
        broken = []
        for path in (self._newest, self._previous):
            if not path.is_file():
                continue
            state = _read(path)
            if state is None:
                broken.append(path)
                continue
            if broken:
                word = f"the checkpoint {broken[0].name} can't be read; going on from the one before, at step {state['step']}"
            return _apply(state, workload, path), word
        if broken:
            raise UserError(f"the checkpoint {broken[0]} can't be read; delete it to begin anew")
        return 0, None

    def remove(self) -> None:
        """When the training is over."""
        for path in (self._newest, self._previous):
            path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """The state in a file; None if it is none, is cut off, or holds anything but tensors and plain values."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a file that is cut off
        return None
    return state if isinstance(state, dict) else None


def _apply(state: Mapping[str, Any], workload: Workload, path: Path) -> int:
    if state.get("version") != CHECKPOINT_VERSION:
        found = state.get("version")
        raise UserError(f"{path}: checkpoint version {found!r}; this revbench reads version {CHECKPOINT_VERSION}")
    if state.get("case_id") != workload.case.id:
        raise UserError(
            f"{path} is a checkpoint of {state.get('case_id')}, not of {workload.case.id}; name another folder"
        )
    try:
        workload.model.load_state_dict(state["model"])
        workload.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"]:
            torch.cuda.set_rng_state_all(state["cuda_random"])
        return int(state["step"])
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path} does not fit this network: {first}; delete it to begin anew") from error


def weights_sha256(model: nn.Module) -> str:
    """A digest of all parameters and buffers by name, dtype, shape and bits: two trainings are equal if it is."""
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
