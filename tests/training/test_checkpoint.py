"""Checkpoints: a training that is killed goes on bit for bit, and what can't be used is said in one line."""

from __future__ import annotations

import io
import os
import signal
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from revbench.case import Case
from revbench.errors import UserError
from revbench.training.checkpoint import (
    Checkpoints,
    largest_checkpoint_bytes,
    random_states,
    restore,
    sealed,
    state_of,
    with_digest,
)
from revbench.training.loop import measure_training
from revbench.training.series_file import SeriesFile
from revbench.training.sources import TEXT
from revbench.workload import Workload, build_workload
from tests.conftest import ROOT

CASE = Case(model="revnet-38", strategy="reconstructed", batch_size=8, training_steps=12, data="digits", image_size=16)
LANGUAGE = Case(
    model="revgpt-1m", strategy="reconstructed", batch_size=4, sequence_length=16, training_steps=12, data=TEXT, recipe="text",
    optimizer="adamw",
)  # fmt: skip
TRAINED = {"images": CASE, "text": LANGUAGE}
SCRIPT = """
import os, signal, sys
from tests.training.test_checkpoint import TRAINED, train
train(TRAINED[sys.argv[3]], sys.argv[1], dies_at=int(sys.argv[2]))
"""


class Interrupted(Exception):
    pass


def train(
    case: Case, folder: Path | str | None, *, dies_at: int = 0, stops_at: int = 0
) -> tuple[str, list[float], int]:
    def progress(message: dict[str, int]) -> None:
        if stops_at and message["done"] == stops_at:
            raise Interrupted
        if dies_at and message["done"] == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    found = measure_training(
        build_workload(case), progress=progress, checkpoint_every=3, evaluations=2,  # type: ignore[arg-type]
        folder=None if folder is None else str(folder), data_path=case.data, validation_images=20,
    )  # fmt: skip
    return str(found.metrics["weights_sha256"]), found.series.get("loss", []), int(found.metrics["resumed_at_step"])  # type: ignore[arg-type,return-value]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, tuple[str, list[float], int]]:
    return {name: train(case, None) for name, case in TRAINED.items()}


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize(
    "dies_at", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow), 7,
                pytest.param(11, marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: dict[str, tuple[str, list[float], int]], dies_at: int, trained: str
) -> None:
    case, (whole, losses, _) = TRAINED[trained], undisturbed[trained]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(dies_at), trained]
    killed = subprocess.run(command, cwd=ROOT, check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    resumed, _, first = train(case, tmp_path)
    assert first == (dies_at - 1) // 3 * 3  # a step is told before its checkpoint is written
    assert resumed == whole
    lines = (tmp_path / "series" / "training.jsonl").read_text().splitlines()
    assert len(lines) == 1 + CASE.training_steps
    with SeriesFile(tmp_path / "series" / "training.jsonl", keep=12) as series:
        assert series.columns()["loss"] == losses


SCALER = torch.amp.GradScaler("cpu", enabled=False)
MORE = {"scaler": SCALER.state_dict(), "random": [random_states("cpu")], "data": "abc", "options": {"a": 1}}

MOST_BYTES = 1 << 30


def state(step: int, case: Case = CASE) -> dict[str, Any]:
    """As of a training of `case` after so many steps; its weights are those of a seed of this number."""
    made = build_workload(case.replace(seed=step))
    workload = Workload(case, made.model, made.make_batch, made.loss, made.optimizer)
    return state_of(workload, step, **MORE)


def checkpoint(folder: Path, *steps: int) -> Checkpoints:
    found = Checkpoints(folder, "training", most_bytes=MOST_BYTES)
    for step in steps:
        found.save(state(step))
    return found


def put_back(
    found: dict[str, Any] | None, workload: Workload, data: str = "abc", options: dict[str, int] | None = None
) -> int:
    assert found is not None
    return restore(
        found, workload, scaler=SCALER, rank=0, data=data, options={"a": 1} if options is None else options
    )  # fmt: skip


def test_the_one_before_takes_the_place_of_a_broken_one(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, 3, 6)
    newest = tmp_path / "training.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    workload = build_workload(CASE)
    read, word = found.newest()
    assert put_back(read, workload) == 3
    assert word == "the checkpoint training.pt can't be read; going on from the one before, at step 3"
    expected = build_workload(CASE.replace(seed=3)).model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in workload.model.state_dict().items())
    (tmp_path / "training.previous.pt").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"training.pt can't be read; delete it to begin anew"):
        found.newest()


def test_between_two_renames(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, 3, 6)
    (tmp_path / "training.pt").unlink()  # killed after the first rename
    read, word = found.newest()
    assert read is not None
    assert (read["step"], word) == (3, None)


def test_lines_that_are_lost_are_said(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train(CASE, tmp_path, stops_at=4)
    (tmp_path / "series" / "training.jsonl").unlink()
    workload = build_workload(CASE)
    found = measure_training(
        workload, progress=lambda _: None, checkpoint_every=3, evaluations=2, validation_images=20, folder=str(tmp_path)
    )  # fmt: skip
    assert found.metrics["resume_note"] == "3 of the series' first 3 lines are lost"


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", "training", most_bytes=MOST_BYTES).newest() == (None, None)


def test_a_checkpoint_of_something_else() -> None:
    workload, good = build_workload(CASE), state(3)
    without_bias = {name: value for name, value in good["model"].items() if name != "head.4.bias"}
    with pytest.raises(UserError, match=r"is of revnet-38,.*, not of resnet-32,.*; name another folder"):
        put_back(good, build_workload(CASE.replace(model="resnet-32", strategy="stored")))
    for changed, said in (
        ({"version": torch.ones(2)}, r"of version tensor.*; this revbench reads version"),
        ({"version": 99}, r"of version 99; this revbench reads version \d+; delete it to begin anew"),
        ({"model": without_bias}, r"does not fit this network: .*; delete it to begin anew"),
        ({"random": []}, r"does not fit this network: .*; delete it to begin anew"),
        ({"optimizer": [1]}, r"does not fit this network: .*; delete it to begin anew"),
        ({"step": CASE.training_steps}, r"does not fit this network: step 12 of 12; delete it to begin anew"),
    ):
        with pytest.raises(UserError, match=said):
            put_back({**good, **changed}, workload)
    with pytest.raises(UserError, match="was made on other data; give the data that it began with"):
        put_back(good, workload, data="abd")
    with pytest.raises(UserError, match=r"began with a=1, not a=2; give the same again"):
        put_back(good, workload, options={"a": 2})


def test_every_process_takes_the_checkpoint_of_the_first_on_its_own_gpu() -> None:
    made = build_workload(CASE)
    first, second = (
        Workload(CASE.replace(device=device), made.model, made.make_batch, made.loss, made.optimizer)
        for device in ("cuda", "cuda:1")
    )
    assert put_back(state_of(first, 3, **MORE), second) == 3


def test_a_broken_checkpoint_never_takes_the_place_of_a_good_one(tmp_path: Path) -> None:
    checkpoint(tmp_path, 3, 6)
    newest = tmp_path / "training.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    found = Checkpoints(tmp_path, "training", most_bytes=MOST_BYTES)
    assert found.newest()[0]["step"] == 3  # type: ignore[index]
    found.save(state(5))
    newest.write_bytes(b"broken again")
    read, _ = Checkpoints(tmp_path, "training", most_bytes=MOST_BYTES).newest()
    assert read is not None
    assert read["step"] == 3


def test_a_checkpoint_that_can_not_be_opened_is_not_called_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checkpoint(tmp_path, 3)

    def denied(path: Path, flags: int) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UserError, match=r"can't open .*training.pt: Permission denied"):
        found.newest()


def test_the_loss_scale_of_float16_goes_on_where_it_was(tmp_path: Path) -> None:
    case = CASE.replace(autocast="float16", batch_size=2, image_size=8, training_steps=4)
    whole, _, _ = train(case, None)
    with pytest.raises(Interrupted):
        train(case, tmp_path, stops_at=4)
    saved, _ = Checkpoints(tmp_path / "checkpoints", "training", most_bytes=MOST_BYTES).newest()
    assert saved is not None
    assert saved["scaler"]["scale"] < 2.0**16  # it has fallen: beginning anew would not be the same
    assert train(case, tmp_path)[0] == whole


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("pwned",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "training.pt").write_bytes(sealed({"version": 3, "evil": Evil()}))
    with pytest.raises(UserError, match="can't be read"):
        Checkpoints(tmp_path, "training", most_bytes=MOST_BYTES).newest()
    assert not (tmp_path / "pwned").exists()


def test_no_flipped_bit_is_resumed(tmp_path: Path) -> None:
    found = checkpoint(tmp_path, 3, 6)
    newest = tmp_path / "training.pt"
    content = newest.read_bytes()
    for bit in range(0, 8 * len(content), 8 * len(content) // 59):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        newest.write_bytes(flipped)
        read, word = found.newest()
        assert read is not None
        assert read["step"] == 3, bit
        assert word is not None
    newest.write_bytes(content)
    assert found.newest()[1] is None


def test_a_checkpoint_that_unpacks_to_more_than_it_is_stays_packed(tmp_path: Path) -> None:
    """A gigabyte of zeros in a megabyte, its digest right, as anybody can make one."""
    plain = tmp_path / "plain.pt"
    torch.save({"version": 3, "model": {"w": torch.zeros(1 << 20)}}, plain)
    packed = io.BytesIO()
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    (tmp_path / "training.pt").write_bytes(with_digest(packed.getvalue()))
    with pytest.raises(UserError, match="can't be read"):
        Checkpoints(tmp_path, "training", most_bytes=MOST_BYTES).newest()


def test_an_archive_with_two_lists_of_its_entries_is_refused(tmp_path: Path) -> None:
    """One where zipfile looks, of entries that are stored; one where PyTorch looks, of entries that unpack to any size."""
    plain = io.BytesIO()
    torch.save({"version": 3, "model": {"w": torch.zeros(1 << 20)}}, plain)
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(plain.getvalue())) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for entry in source.infolist():
            out.writestr(entry.filename, source.read(entry))
    bomb = packed.getvalue()
    list_offset = struct.unpack_from("<I", bomb, len(bomb) - 22 + 16)[0]
    harmless = io.BytesIO()
    with zipfile.ZipFile(harmless, "w") as out:
        out.writestr("a", "b")
    second = harmless.getvalue()
    both = bytearray(bomb[:-22] + second)
    struct.pack_into("<I", both, len(both) - 22 + 16, list_offset)  # PyTorch goes by this, zipfile by the size
    assert [entry.filename for entry in zipfile.ZipFile(io.BytesIO(bytes(both))).infolist()] == ["a"]
    (tmp_path / "training.pt").write_bytes(with_digest(bytes(both)))
    with pytest.raises(UserError, match="can't be read"):
        Checkpoints(tmp_path, "training", most_bytes=MOST_BYTES).newest()


def test_a_checkpoint_of_an_older_version_is_not_called_broken(tmp_path: Path) -> None:
    torch.save({"version": 2}, tmp_path / "training.pt")
    with pytest.raises(
        UserError, match=r"is of an older revbench, which kept no digest; go on with that one, or delete it"
    ):
        Checkpoints(tmp_path, "training", most_bytes=MOST_BYTES).newest()


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".training.fresh.pt.0123456789abcdef").write_bytes(b"half")
    (tmp_path / ".other.fresh.pt.0123456789abcdef").write_bytes(b"half")
    checkpoint(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.fresh.pt.0123456789abcdef", "training.pt"]


def test_a_checkpoint_larger_than_the_network_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "training.pt").open("wb") as file:
        file.truncate(1 << 40)  # of nothing: it takes no room on the disk
    most = largest_checkpoint_bytes(build_workload(CASE).model)
    with pytest.raises(UserError, match=r"it holds 1024.0 GiB, and .* MiB are the most that is read"):
        Checkpoints(tmp_path, "training", most_bytes=most).newest()


def test_a_checkpoint_of_every_network_is_smaller_than_its_bound(tmp_path: Path) -> None:
    for optimizer in ("sgd", "adamw"):
        workload = build_workload(CASE.replace(optimizer=optimizer))
        inputs, targets = workload.batch()
        workload.loss(workload.model(inputs), targets).backward()
        workload.optimizer.step()
        assert len(sealed(state_of(workload, 3, **MORE))) < largest_checkpoint_bytes(workload.model)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = checkpoint(tmp_path, 3)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("revbench.training.checkpoint.write_atomically", full)
    with pytest.raises(UserError, match=r"can't write the checkpoint .*No space left on device; make room$"):
        checkpoint(tmp_path, 6)
    read, _ = found.newest()
    assert read is not None
    assert read["step"] == 3
