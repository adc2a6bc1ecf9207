"""The batches of a step: what an epoch shows, how it is augmented, and that nothing but seed and step decides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from revbench.paper.recipes import RECIPES
from revbench.training.order import ALONE, Batches, Share, mixed


def batches(
    count: int,
    batch_size: int,
    *,
    seed: int = 0,
    padding: int = 0,
    flip: bool = False,
    size: int = 2,
    share: Share = ALONE,
) -> Batches:
    """Images that are told apart by their label in every pixel of the first channel and by their place in the others."""
    images = torch.zeros(count, 3, size, size, dtype=torch.uint8)
    images[:, 0] = torch.arange(count, dtype=torch.uint8)[:, None, None]
    images[:, 1] = torch.arange(1, size + 1, dtype=torch.uint8)[:, None]
    images[:, 2] = torch.arange(1, size + 1, dtype=torch.uint8)
    return Batches(
        images, torch.arange(count), batch_size=batch_size, seed=seed, padding=padding, flip=flip, share=share
    )


def test_the_schedule_is_the_papers() -> None:
    at = {step: RECIPES["cifar"].learning_rate_at(step, 80_000) for step in (0, 39_999, 40_000, 59_999, 60_000, 79_999)}
    assert list(at.values()) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])

    at = {step: RECIPES["imagenet"].learning_rate_at(step, 600_000) for step in (159_999, 160_000, 320_000, 480_000)}
    assert list(at.values()) == pytest.approx([0.1, 0.01, 0.001, 0.0001])


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(0, 50))
def test_processes_share_the_batch_of_one(count: int, world_size: int, each: int, step: int) -> None:
    images, labels = batches(count, world_size * each, padding=2, flip=True, size=4).at(step)
    parts = [
        batches(count, world_size * each, padding=2, flip=True, size=4, share=Share(rank, world_size)).at(step)
        for rank in range(world_size)
    ]
    assert torch.equal(torch.cat([part for part, _ in parts]), images)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**40))
def test_an_epoch_shows_every_image_once(count: int, batch_size: int, seed: int) -> None:
    found = batches(count, batch_size, seed=seed)
    shown = torch.cat([found.at(step)[1] for step in range(3 * count // batch_size + 2)])
    for epoch in range(3):
        assert sorted(shown[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


def test_any_step_can_be_asked_for_first() -> None:
    one, other = batches(50, 7, padding=2, flip=True, size=5), batches(50, 7, padding=2, flip=True, size=5)
    forward = [one.at(step) for step in range(20)]
    for step in (19, 3, 11, 3):
        assert all(map(torch.equal, forward[step], other.at(step)))
    seeded = batches(50, 7, seed=1, padding=2, flip=True, size=5)
    assert not torch.equal(seeded.at(0)[1], forward[0][1])


def test_images_stay_with_their_labels_and_are_cut_from_the_padded_image() -> None:
    found = batches(30, 300, padding=4, flip=True, size=8)
    images, labels = found.at(0)
    assert images.shape == (300, 3, 8, 8)
    source = batches(30, 30, padding=0, size=8)._padded
    corners, mirrored = set(), 0
    for image, label in zip(images, labels, strict=True):
        padded = F.pad(source[label], (4,) * 4)
        cuts = [(i, j, padded[:, i : i + 8, j : j + 8]) for i in range(9) for j in range(9)]
        matches = [
            (i, j, mirror)
            for i, j, cut in cuts
            for mirror in (False, True)
            if torch.equal(image, cut.flip(-1) if mirror else cut)
        ]
        assert len(matches) == 1
        corners.add(matches[0][:2])
        mirrored += matches[0][2]
    assert len(corners) > 60  # of 81
    assert 110 < mirrored < 190


def test_digits_are_not_mirrored() -> None:
    images, _ = batches(30, 300, padding=0, flip=False, size=4).at(0)
    assert (images[:, 2] == torch.arange(1, 5, dtype=torch.uint8)).all()


def test_seeds_steps_and_purposes_share_no_stream() -> None:
    found = {mixed(seed, number, purpose) for seed in range(30) for number in range(30) for purpose in (0, 1)}
    assert len(found) == 1800
    assert all(0 <= value < 2**63 for value in found)
