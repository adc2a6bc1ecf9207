"""Where a training stands, on disk: written whole or not at all, the one before kept; read only if every bit of it is as it was
written, and never unpickled.

A checkpoint is a file of `torch.save` (a zip archive) whose comment holds the SHA-256 of all before it.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from revbench.case import Case, is_gpu
from revbench.errors import MAKE_ROOM, UserError, first_line
from revbench.results.files import is_there, read_bytes, write_atomically
from revbench.workload import Workload

CHECKPOINT_VERSION = 3
_END = b"PK\x05\x06"  # begins the last record of an archive
_COMMENT = b"revbench sha256 "
_COMMENT_BYTES = len(_COMMENT) + 64


class Checkpoints:
    """The last two checkpoints of one training: ``<stem>.pt`` and ``<stem>.previous.pt``; ``<stem>.fresh.pt`` is on its way.

    Args:
        folder: made if it is not there.
        stem: of the files' names.
        most_bytes: a larger file is no checkpoint of this training; see `largest_checkpoint_bytes`.
    """

    def __init__(self, folder: Path, stem: str, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._newest = folder / f"{stem}.pt"
        self._previous = folder / f"{stem}.previous.pt"
        self._fresh = folder / f"{stem}.fresh.pt"
        self._newest_is_broken = False
        for path in folder.glob(f".{stem}.*"):  # what a kill left half-written
            path.unlink(missing_ok=True)

    def save(self, state: Mapping[str, Any]) -> None:
        """Write what `state_of` gave.

        Raises:
            UserError: it can't be written; what was there before is still there.
        """
        try:
            write_atomically(self._fresh, sealed(state))
            if self._newest.exists() and not self._newest_is_broken:  # else the one before is the only good one
                os.replace(self._newest, self._previous)
            os.replace(self._fresh, self._newest)
            self._newest_is_broken = False
        except OSError as error:
            raise UserError(f"can't write the checkpoint {self._newest}: {error.strerror}; {MAKE_ROOM}") from error

    def newest(self) -> tuple[dict[str, Any] | None, str | None]:
        """Returns the state of the newest checkpoint that can be read.

        Returns:
            The state, None if there is no checkpoint; and a word if the newest could not be read and the one before was taken.

        Raises:
            UserError: none of the files is a checkpoint, or one can't be opened.
        """
        broken = []
        for path in (self._newest, self._previous):
            if not is_there(path):
                continue
            state = _read(path, self._most_bytes)
            if state is None:
                broken.append(path)
                self._newest_is_broken |= path == self._newest
            elif broken:
                step = state.get("step")
                return (
                    state,
                    f"the checkpoint {broken[0].name} can't be read; going on from the one before, at step {step}",
                )
            else:
                return state, None
        if broken:
            raise UserError(f"the checkpoint {broken[0]} can't be read; delete it to begin anew")
        return None, None


def state_of(workload: Workload, step: int, **more: Any) -> dict[str, Any]:
    """Returns all that a training needs to go on after `step` steps: weights, buffers, optimizer, random generators.

    The order of the data and the learning rate are functions of seed and step (`revbench.training.order`,
    `revbench.paper.recipes`), so the step says where they stand.

    Args:
        workload: what is trained.
        step: how many steps are done.
        more: what else to keep: ``scaler``, ``random`` (of each process), ``data``, ``options``.
    """
    return {
        "version": CHECKPOINT_VERSION, "case_id": _identity(workload.case), "step": step, "model": workload.model.state_dict(),
        "optimizer": workload.optimizer.state_dict(), **more,
    }  # fmt: skip


def restore(
    state: Mapping[str, Any],
    workload: Workload,
    *,
    scaler: torch.amp.GradScaler,
    rank: int,
    data: str,
    options: Mapping[str, Any],
) -> int:
    """Put weights, buffers, optimizer, loss scale and random generators of a training into a checkpoint's state.

    Args:
        state: of the checkpoint.
        workload, scaler: what is trained.
        rank: of this process, for its random generators.
        data: digests of the images that it is trained on and validated with.
        options: with which its series was begun.

    Returns:
        The number of steps that were done.

    Raises:
        UserError: it is of another case, version, data or options, or does not fit the network.
    """
    found = state.get("version")
    if type(found) is not int or found != CHECKPOINT_VERSION:
        raise UserError(
            f"a checkpoint of version {str(found)[:20]}; this revbench reads version {CHECKPOINT_VERSION};"
            " delete it to begin anew"
        )
    case_id = _identity(workload.case)
    if not isinstance(state.get("case_id"), str) or state["case_id"] != case_id:
        raise UserError(
            f"the checkpoint is of {str(state.get('case_id'))[:500]}, not of {case_id}; name another folder"
        )
    if not isinstance(state.get("data"), str) or state["data"] != data:
        raise UserError(
            f"the checkpoint of {case_id} was made on other data; give the data that it began with, or another folder"
        )
    if not _same(state.get("options"), options):
        raise UserError(
            f"the training of {case_id} began with {_listed(state.get('options'))}, not {_listed(options)}; give the same again"
        )
    try:
        workload.model.load_state_dict(state["model"])
        workload.optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        _set_random_states(state["random"][rank], workload.case.device)
        step = int(state["step"])
        if not 0 < step < workload.case.training_steps:
            raise ValueError(f"step {step} of {workload.case.training_steps}")
        return step
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the checkpoint of {case_id} does not fit this network: {first_line(error)}; delete it to begin anew"
        ) from error


def _identity(case: Case) -> str:
    """Returns a case's id, the same for every GPU: the processes of one training differ in theirs."""
    return case.replace(device=case.device_type).id


def _same(found: Any, options: Mapping[str, Any]) -> bool:
    """Tells whether settings of a file are these; a tensor among them would be equal to nothing and to everything."""
    plain = isinstance(found, dict) and all(isinstance(value, (int, float, str)) for value in found.values())
    return plain and found == options


def _listed(options: Any) -> str:
    pairs = options.items() if isinstance(options, Mapping) else ()
    return ", ".join(f"{name}={value}" for name, value in pairs)[:500] or "nothing"


def random_states(device: str) -> dict[str, Any]:
    """Returns those of this process's generators that a training draws from."""
    found: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if is_gpu(device):
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def _set_random_states(states: Mapping[str, Any], device: str) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def largest_checkpoint_bytes(model: nn.Module) -> int:
    """More than a checkpoint of a network takes: its weights and buffers, at most two numbers of state for each weight (AdamW),
    all of them in float64, and what else is kept."""
    numbers = sum(t.numel() for t in (*model.parameters(), *model.buffers()))
    return 4 * 8 * numbers + (64 << 20)


def sealed(state: Mapping[str, Any]) -> bytes:
    """Returns a file of `torch.save` with its own digest as the comment of the archive, which ends it."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return with_digest(buffer.getvalue())


def with_digest(content: bytes) -> bytes:
    """Returns an archive with the SHA-256 of its bytes as its comment."""
    if not content.endswith(b"\0\0"):  # the length of no comment
        raise AssertionError("this PyTorch writes archives with a comment of its own")
    head = content[:-2] + struct.pack("<H", _COMMENT_BYTES)
    return head + _COMMENT + sha256(head).hexdigest().encode()


def _read(path: Path, most_bytes: int) -> dict[str, Any] | None:
    """Returns the state in a file; None if it is none, is not as it was written, or holds anything but tensors and plain values.

    Raises:
        UserError: it can't be opened: it is a link, too large, or not the user's.
    """
    content = read_bytes(path, most_bytes=most_bytes)
    if content[-22:-18] == _END and content.endswith(b"\0\0"):
        raise UserError(
            f"the checkpoint {path} is of an older revbench, which kept no digest; go on with that one, or delete it to"
            " begin anew"
        )
    head, comment = content[:-_COMMENT_BYTES], content[-_COMMENT_BYTES:]
    if comment != _COMMENT + sha256(head).hexdigest().encode() or not _is_plain_archive(content):
        return None
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds for a file that is none of its own
        return None
    return state if isinstance(state, dict) else None


def _is_plain_archive(content: bytes) -> bool:
    """Tells whether what is in an archive takes no more room than the archive: torch.save compresses nothing.

    PyTorch finds the list of its entries by an offset, zipfile by where it must be: an archive where these differ has two lists.
    """
    end = len(content) - _COMMENT_BYTES - 22
    if end < 0 or content[end : end + 4] != _END:
        return False
    short = struct.unpack_from("<II", content, end + 12)  # size and offset of the list
    size, offset = short
    locator = end - 20
    if locator >= 56 and content[locator : locator + 4] == b"PK\x06\x07":  # the same again in longer numbers, before it
        end = locator - 56
        if content[end : end + 4] != b"PK\x06\x06" or struct.unpack_from("<Q", content, locator + 8)[0] != end:
            return False
        size, offset = struct.unpack_from("<QQ", content, end + 40)
        if any(a not in (b, 2**32 - 1) for a, b in zip(short, (size, offset), strict=True)):
            return False
    if offset + size != end:
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error):
        return False
    stored = all(e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size for e in entries)
    return stored and sum(e.file_size for e in entries) <= len(content)


def weights_sha256(model: nn.Module) -> str:
    """Returns a digest of all parameters and buffers by name, dtype, shape and bits: two trainings are equal if it is."""
    digest = sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
