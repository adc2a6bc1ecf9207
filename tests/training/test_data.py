from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from revbench.errors import UserError
from revbench.training.data import load_images
from revbench.training.sources import count_classes, count_training_images, split_data_option


def make_folder(root: Path, classes: int = 3, images: int = 10, size: tuple[int, int] = (32, 32)) -> Path:
    for c in range(classes):
        folder = root / f"class{c}"
        folder.mkdir(parents=True)
        for i in range(images):
            Image.new("RGB", size, (60 * c, i, 255)).save(folder / f"{i}.png")
    return root


def test_digits_are_real_and_split_the_same_way_every_time() -> None:
    a, b = (load_images("digits", image_size=32) for _ in range(2))
    assert a.train_images.shape == (1438, 3, 32, 32)
    assert a.validation_images.shape == (359, 3, 32, 32)
    assert torch.equal(a.train_images, b.train_images)
    assert sorted(set(a.train_labels.tolist())) == list(range(10))
    assert not a.flip
    assert a.train_images.max() == 255
    assert a.train_images[:, 0].float().std() > 50


def test_only_images_are_opened(tmp_path: Path) -> None:
    """Not PostScript, for which PIL runs Ghostscript, nor a pipe, which would be waited for, nor what has no end of pixels."""
    folder = make_folder(tmp_path / "f", classes=1)
    victim = folder / "class0" / "3.png"
    for content, said in (
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "it is none of JPEG, PNG"),
        (b"P6 20000 20000 255\n", "are more than|exceeds limit"),
        (None, "no regular file"),
    ):
        victim.unlink()
        os.mkfifo(victim) if content is None else victim.write_bytes(content)
        with pytest.raises(UserError, match=rf"3.png can't be read: .*({said})"):
            load_images(str(folder), image_size=8)


def test_a_link_that_leads_back_is_no_hang(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f")
    for name in ("a", "b", "c"):
        (folder / "class0" / name).symlink_to(folder)
    with pytest.raises(
        UserError, match=r"class0/[abc].*' leads back, by a link, to a folder that it is in; remove the link"
    ):
        split_data_option(str(folder))
    for name in ("a", "b", "c"):
        (folder / "class0" / name).unlink()
    (folder / "class1" / "more").symlink_to(folder / "class2")  # which is no loop
    assert split_data_option(str(folder))[0] == "f"
    assert count_training_images(str(folder)) == 32


def test_a_folder_without_split_holds_out_a_fifth(tmp_path: Path) -> None:
    found = load_images(str(make_folder(tmp_path / "f")), image_size=16)
    assert (len(found.train_labels), len(found.validation_labels)) == (24, 6)
    assert found.num_classes == 3
    assert found.flip
    for image, label in zip(found.train_images, found.train_labels, strict=True):
        assert image[0].unique().tolist() == [60 * label]


def test_a_folder_with_split_and_limits(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", size=(40, 30))
    make_folder(tmp_path / "test", images=4)
    found = load_images(str(tmp_path), image_size=20, train_limit=7)
    assert found.train_images.shape == (7, 3, 20, 20)
    assert (found.train_available, len(found.validation_labels)) == (30, 12)


def test_hidden_folders_and_files_do_not_count(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", classes=2)
    for hidden in (folder / ".ipynb_checkpoints", folder / "class0" / ".thumbnails"):
        hidden.mkdir()
        Image.new("RGB", (32, 32)).save(hidden / "copy.png")
    Image.new("RGB", (32, 32)).save(folder / "class1" / "._0.png")
    _, source = split_data_option(str(folder))
    assert (count_classes(source), count_training_images(source)) == (2, 16)
    found = load_images(source, image_size=8)
    assert (found.num_classes, len(found.train_labels) + len(found.validation_labels)) == (2, 20)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_grey_images_of_16_bits_are_scaled(tmp_path: Path, suffix: str) -> None:
    for c in range(2):
        (tmp_path / f"class{c}").mkdir()
        for i in range(5):
            levels = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
            Image.fromarray(levels).save(tmp_path / f"class{c}" / f"{i}.{suffix}")
    found = load_images(str(tmp_path), image_size=8)
    expected = torch.linspace(0, 255, 64).reshape(8, 8)
    assert (found.train_images.float() - expected).abs().max() <= 1


@pytest.mark.parametrize(("kind", "words"), [(np.float32, "floating-point numbers"), (np.int32, "32-bit integers")])
def test_images_whose_range_nobody_knows_are_refused(tmp_path: Path, kind: type, words: str) -> None:
    for c in range(2):
        (tmp_path / f"class{c}").mkdir()
        for i in range(5):
            Image.fromarray(np.ones((8, 8), dtype=kind)).save(tmp_path / f"class{c}" / f"{i}.tiff")
    with pytest.raises(UserError, match=f"its pixels are {words}.*save it with 8 or 16 bits a channel"):
        load_images(str(tmp_path), image_size=8)


def test_no_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.delenv("REVBENCH_DATA_ROOT", raising=False)
    with pytest.raises(UserError, match="set REVBENCH_DATA_ROOT"):
        load_images("imagenet", image_size=8)
    monkeypatch.setenv("REVBENCH_DATA_ROOT", str(tmp_path))
    with pytest.raises(UserError, match=r"data set 'imagenet' can't be had in .*put it there by hand"):
        load_images("imagenet", image_size=8)


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text" / "a").mkdir(parents=True)
    (tmp_path / "text" / "a" / "x.txt").write_text("no image")
    make_folder(tmp_path / "half" / "train")
    (tmp_path / "half" / "val").mkdir()
    make_folder(tmp_path / "few", classes=2, images=2)
    (make_folder(tmp_path / "hole") / "class9").mkdir()
    for bad in ("absent", "empty", "text", "half", "few", "hole"):
        with pytest.raises(UserError) as caught:
            split_data_option(str(tmp_path / bad))
        assert "\n" not in str(caught.value)
    broken = make_folder(tmp_path / "broken")
    (broken / "class0" / "0.png").write_bytes(b"not a png")
    with pytest.raises(UserError, match="can't be read"):
        load_images(str(broken), image_size=32, train_limit=30)


def test_links_to_folders_of_images_count(tmp_path: Path) -> None:
    whole = make_folder(tmp_path / "whole")
    (tmp_path / "part").mkdir()
    for name in ("class0", "class2"):
        (tmp_path / "part" / name).symlink_to(whole / name)
    (tmp_path / "part" / "loose.png").write_bytes((whole / "class0" / "0.png").read_bytes())
    assert count_training_images(str(tmp_path / "part")) == 16
    assert len(load_images(str(tmp_path / "part"), image_size=8).train_labels) == 16


def test_classes_mean_the_same_in_both_parts(tmp_path: Path) -> None:
    make_folder(tmp_path / "train")
    for c in (2, 1):
        folder = tmp_path / "val" / f"class{c}"
        folder.mkdir(parents=True)
        Image.new("RGB", (32, 32), (60 * c, 0, 255)).save(folder / "x.png")
    found = load_images(str(tmp_path), image_size=32)
    assert found.validation_labels.tolist() == [1, 2]
    assert [image[0, 0, 0].item() for image in found.validation_images] == [60, 120]
    assert count_classes(str(tmp_path)) == 3
    (tmp_path / "val" / "other").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "val" / "other" / "x.png")
    with pytest.raises(UserError, match="only the validation images have a class 'other'"):
        load_images(str(tmp_path), image_size=32)


def test_labels_of_data_options(tmp_path: Path) -> None:
    make_folder(tmp_path / "my images")
    path = str((tmp_path / "my images").resolve())
    assert split_data_option("digits") == ("digits", "digits")
    assert split_data_option("cifar10") == ("cifar10", "cifar10")
    assert split_data_option(path) == ("my images", path)
    assert split_data_option(f"CIFAR-10 (JPEG)={path}") == ("CIFAR-10 (JPEG)", path)
    for taken in ("digits", "normal", "a\udcffb"):
        with pytest.raises(UserError, match="label"):
            split_data_option(f"{taken}={path}")
    assert (count_classes(path), count_classes("cifar100")) == (3, 100)


def test_a_set_that_can_not_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVBENCH_DATA_ROOT", str(tmp_path))
    with pytest.raises(UserError, match="imagenet"):
        load_images("imagenet", image_size=32)


@pytest.mark.skipif("REVBENCH_TEST_CIFAR10_JPEG" not in os.environ, reason="REVBENCH_TEST_CIFAR10_JPEG names no folder")
def test_cifar10_as_jpeg() -> None:
    label, path = split_data_option(f"CIFAR-10 (JPEG)={os.environ['REVBENCH_TEST_CIFAR10_JPEG']}")
    assert label == "CIFAR-10 (JPEG)"
    found = load_images(path, image_size=32, train_limit=500, validation_limit=100)
    assert (found.train_available, found.num_classes, len(found.train_labels)) == (50_000, 10, 500)


def test_imagenet_without_a_split_is_not_unpacked_by_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was whole once, and of which somebody removed a folder while its archives are there."""
    monkeypatch.setenv("REVBENCH_DATA_ROOT", str(tmp_path))
    (tmp_path / "train").mkdir()
    (tmp_path / ".imagenet.whole").touch()
    fetched: list[bool] = []

    def open_split(root: str, split: str, loader: object) -> None:
        fetched.append((tmp_path / ".imagenet.lock").exists())
        raise RuntimeError("no archive")

    monkeypatch.setattr("torchvision.datasets.ImageNet", open_split)
    with pytest.raises(UserError, match="data set 'imagenet' can't be had"):
        load_images("imagenet", image_size=32)
    assert fetched == [True]  # under the lock alone
