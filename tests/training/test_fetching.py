from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from revbench.training.fetching import fetched_once


class DataSet:
    """Notes who fetches it, and how many open it at once."""

    def __init__(self, folder: Path, together: int = 1) -> None:
        self.file = folder / "data"
        self.fetched = self.opened = 0
        self.together = threading.Barrier(together)

    def __call__(self, *, fetch: bool) -> str:
        if fetch:
            self.fetched += 1
            time.sleep(0.05)
            self.file.write_text("images")
        elif not self.file.exists():
            raise RuntimeError("Dataset not found or corrupted")
        else:
            self.together.wait(timeout=30)  # nobody goes on before all others are here
        self.opened += 1
        return self.file.read_text()


def test_one_fetches_and_all_others_open_it_at_once(tmp_path: Path) -> None:
    data = DataSet(tmp_path, together=3)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(fetched_once(tmp_path, "cifar10", data))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["images"] * 4
    assert data.fetched == 1


def test_a_set_that_was_removed_is_fetched_again(tmp_path: Path) -> None:
    data = DataSet(tmp_path)
    assert [fetched_once(tmp_path, "cifar10", data) for _ in range(2)] == ["images"] * 2
    data.file.unlink()
    assert fetched_once(tmp_path, "cifar10", data) == "images"
    assert data.fetched == 2


def test_a_fetch_that_fails_is_tried_again_by_the_next(tmp_path: Path) -> None:
    def fails(*, fetch: bool) -> str:
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        fetched_once(tmp_path, "cifar10", fails)
    data = DataSet(tmp_path)
    assert fetched_once(tmp_path, "cifar10", data) == "images"
    assert data.fetched == 1


def test_where_nothing_can_be_written_it_is_opened_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_text("images")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    data = DataSet(tmp_path)
    assert fetched_once(tmp_path, "cifar10", data) == "images"
    assert (data.fetched, os.listdir(tmp_path)) == (0, ["data"])
