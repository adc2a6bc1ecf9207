"""Where images come from, and how many there are."""

from __future__ import annotations

from pathlib import Path

from revbench.training.sources import count_training_images


def test_training_images_are_counted(tmp_path: Path) -> None:
    assert count_training_images("digits") == 1_438
    for name in ("a", "b"):
        (tmp_path / "whole" / name).mkdir(parents=True)
        for i in range(5):
            (tmp_path / "whole" / name / f"{i}.png").touch()
    assert count_training_images(str(tmp_path / "whole")) == 8
    for split, count in (("train", 3), ("test", 1)):
        (tmp_path / "split" / split / "a").mkdir(parents=True)
        for i in range(count):
            (tmp_path / "split" / split / "a" / f"{i}.png").touch()
    assert count_training_images(str(tmp_path / "split")) == 3
