"""Where batches come from: the same whatever reads them, and normalised by what they are."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from revbench.case import Case
from revbench.errors import UserError
from revbench.training.batches import VALIDATION_BATCH, FileSupply, MemorySupply, Supply
from revbench.training.data import Images, ImageSet, image_sets, load_images
from revbench.training.order import ALONE, Share
from revbench.training.supplies import open_supply
from revbench.workload import build_workload

CASE = Case(model="revnet-104", recipe="imagenet", batch_size=4, data="photographs", training_steps=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 12 images to train on and 5 to validate, of unlike sizes, random pixels, as PNG."""
    root = tmp_path_factory.mktemp("photographs")
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 5)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                shape = (int(draw.integers(20, 60)), int(draw.integers(20, 60)), 3)
                Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(root / split / name / f"{i}.png")
    return root


def files(folder: Path, *, case: Case = CASE, loaders: int = 0, share: Share = ALONE, limit: int = 0) -> FileSupply:
    found = open_supply(
        build_workload(case), str(folder), image_size=16, validation_limit=limit, loaders=loaders, share=share
    )
    assert isinstance(found, FileSupply)
    return found


def read(supply: Supply, first: int, last: int) -> list[tuple[Tensor, Tensor]]:
    return list(supply.batches(first, last))


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for left, right in zip(one, other, strict=True) for a, b in zip(left, right, strict=True)
    )


def test_batches_of_files_are_a_function_of_seed_and_step(folder: Path) -> None:
    whole = read(files(folder), 0, 5)
    assert [tuple(pixels.shape) for pixels, _ in whole] == [(4, 3, 16, 16)] * 5
    assert whole[0][0].dtype is torch.uint8
    assert same(read(files(folder, loaders=2), 0, 5), whole)  # whoever reads them
    assert same(read(files(folder), 3, 5), whole[3:])  # wherever one begins
    assert not same(read(files(folder, case=CASE.replace(seed=1)), 0, 5), whole)
    parts = [read(files(folder, share=Share(rank, 2)), 0, 5) for rank in (0, 1)]
    joined = [tuple(torch.cat(pair) for pair in zip(*both, strict=True)) for both in zip(*parts, strict=True)]
    assert same(joined, whole)  # type: ignore[arg-type]


def test_an_image_is_cropped_otherwise_in_every_epoch(folder: Path) -> None:
    supply = files(folder, case=CASE.replace(batch_size=24))
    (first, _), (second, _) = read(supply, 0, 2)
    assert not torch.equal(first.sort(0).values, second.sort(0).values)


def test_reading_files_draws_nothing_from_the_trainings_generator(folder: Path) -> None:
    supplies = [files(folder, loaders=loaders) for loaders in (0, 1)]
    before = torch.get_rng_state()
    for supply in supplies:
        read(supply, 0, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_takes_the_middle_of_every_image_once(folder: Path) -> None:
    shares = [list(files(folder, share=Share(rank, 3)).validation()) for rank in range(3)]
    labels = torch.cat([labels for share in shares for _, labels in share])
    assert sorted(labels.tolist()) == [0] * 5 + [1] * 5
    pixels, _ = next(files(folder).validation())
    image = Image.open(folder / "val" / "a" / "0.png")
    short = min(image.size)
    assert pixels.shape == (10, 3, 16, 16)
    # The middle of an image whose short side is 18 = 16 * 8 / 7: its mean is near that of the middle of the original.
    side = short * 16 // 18
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = np.asarray(image)[top : top + side, left : left + side]
    assert pixels[0].float().mean() == pytest.approx(float(middle.mean()), abs=3)


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_corrupt_file_is_named_when_its_turn_comes(folder: Path, tmp_path: Path, loaders: int) -> None:
    bad = tmp_path / "bad"
    for name in ("a", "b"):
        (bad / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (20, 20), (i, 0, 0)).save(bad / name / f"{i}.jpg")
    whole = (bad / "a" / "3.jpg").read_bytes()
    (bad / "a" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    supply = files(bad, loaders=loaders)
    said = r"image .*/a/3\.jpg can't be read: .*; put a good copy in its place, or remove it"
    with pytest.raises(UserError, match=said) as caught:
        list(itertools.chain(supply.batches(0, 5), supply.validation()))
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"image .*/a/3\.jpg can't be read"):
        load_images(str(bad), image_size=16)


def test_what_can_not_be_cropped(folder: Path) -> None:
    with pytest.raises(UserError, match="the digits are none; use --recipe cifar"):
        open_supply(build_workload(CASE), "digits", image_size=32, validation_limit=0, loaders=0, share=Share())


def test_images_that_memory_can_not_hold(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageSet, "__len__", lambda self: 10**9)
    with pytest.raises(
        UserError, match=r"1,000,000,000 images of 224×224 take .* GiB, more than half of the free memory"
    ):
        load_images(str(folder), image_size=224)


def images(count: int = 50) -> Images:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(30, 200, (count, 3, 8, 8), generator=draw, dtype=torch.uint8)
    labels = torch.arange(count) % 10
    return Images(pixels, labels, pixels[:7], labels[:7], 10, flip=True, train_available=count)


def test_facts_of_images_in_memory() -> None:
    found = MemorySupply(Case(model="revnet-38", batch_size=10), images()).facts
    pixels = images().train_images.double() / 255
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert found.deviation == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-12)
    assert (found.item, found.train_items, found.validation_items) == ("image", 50, 7)


def test_a_digest_tells_images_apart(folder: Path) -> None:
    one, other = images(), images()
    assert one.sha256() == other.sha256()
    other.train_images[3, 2, 1, 0] += 1
    assert one.sha256() != other.sha256()
    train, validation = image_sets(str(folder))
    assert train.sha256() != validation.sha256()
    assert train.limited(5).sha256() == image_sets(str(folder))[0].limited(5).sha256() != train.sha256()


def test_validation_in_memory_is_shared_out() -> None:
    held = images()
    whole = Images(
        held.train_images, held.train_labels, torch.arange(450 * 3 * 64).remainder(251).byte().view(450, 3, 8, 8),
        torch.arange(450), 10, flip=True, train_available=50,
    )  # fmt: skip
    case = Case(model="revnet-38", batch_size=10)
    shares = [list(MemorySupply(case, whole, Share(rank, 2)).validation()) for rank in (0, 1)]
    assert max(len(labels) for share in shares for _, labels in share) == VALIDATION_BATCH
    labels = torch.cat([labels for share in shares for _, labels in share])
    assert sorted(labels.tolist()) == list(range(450))
