"""Training on text: the same windows for everybody, what is held out is never trained on, and a language model learns from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from revbench.case import Case
from revbench.case.pairs import recipe_of
from revbench.errors import UserError
from revbench.launch.request import Request
from revbench.probes.measurement import Measurement
from revbench.training.loop import measure_training
from revbench.training.order import Share
from revbench.training.sources import TEXT, is_text, split_data_option
from revbench.training.supplies import open_supply
from revbench.training.text import TextSupply, load_text
from revbench.workload import build_workload

CASE = Case(
    model="revgpt-1m", batch_size=4, sequence_length=16, training_steps=6, recipe="text", optimizer="adamw", data=TEXT
)


def train(case: Case = CASE, **options: Any) -> Measurement:
    chosen = {"evaluations": 1, "validation_images": 3, "data_path": TEXT, **options}
    return measure_training(build_workload(case), progress=lambda _: None, **chosen)


def test_the_text_of_python_is_there() -> None:
    text = load_text(TEXT)
    assert 300_000 < len(text) < 3_000_000
    assert b"expression" in bytes(text[:20_000].tolist())


def test_a_step_sees_the_same_windows_whenever_it_is_asked_for() -> None:
    supply = TextSupply(CASE, torch.arange(200).to(torch.uint8))
    steps = list(supply.batches(0, 4))
    for tokens, following in steps:
        assert tokens.shape == following.shape == (4, 16)
        assert torch.equal(tokens + 1, following)
        assert int(following.max()) < 160  # the last fifth is held out
    again = list(supply.batches(2, 4))
    assert all(torch.equal(a, b) for pair in zip(steps[2:], again, strict=True) for a, b in zip(*pair, strict=True))
    assert not torch.equal(steps[0][0], steps[1][0])
    other = TextSupply(CASE.replace(seed=1), torch.arange(200).to(torch.uint8))
    assert not torch.equal(next(iter(other.batches(0, 1)))[0], steps[0][0])


def test_what_is_held_out_is_gone_through_once() -> None:
    supply = TextSupply(CASE, torch.arange(200).to(torch.uint8))
    ((tokens, following),) = supply.validation()
    assert torch.equal(tokens.flatten(), torch.arange(160, 192))
    assert torch.equal(following.flatten(), torch.arange(161, 193))
    assert (supply.facts.train_items, supply.facts.validation_items) == (160, 32)


def test_processes_share_a_batch() -> None:
    whole = TextSupply(CASE, load_text(TEXT))
    parts = [TextSupply(CASE, load_text(TEXT), share=Share(rank, 2)) for rank in range(2)]
    ((tokens, _),) = whole.batches(3, 4)
    found = [next(iter(part.batches(3, 4)))[0] for part in parts]
    assert torch.equal(torch.cat(found), tokens)


def test_a_language_model_trains_and_says_on_how_many_tokens() -> None:
    found = train(CASE.replace(training_steps=40))
    assert found.metrics["train_tokens"] == len(load_text(TEXT)) - len(load_text(TEXT)) // 5
    assert found.metrics["validation_tokens"] == 48
    assert found.series["loss"][0] == pytest.approx(5.55, abs=0.15)  # ln 256 nats of who knows nothing
    assert found.metrics["train_loss"] < 4.2  # type: ignore[operator]
    assert 0 < found.metrics["validation_error"] < 1  # type: ignore[operator]
    rates = found.series["learning_rate"]
    assert rates[0] < rates[1] == max(rates)  # warms up over a twentieth of the steps
    assert rates[-1] < 0.01 * max(rates)


def test_stored_and_reconstructed_train_alike_in_float64() -> None:
    case = CASE.replace(dtype="float64")
    stored, ours = (train(case.replace(strategy=strategy)).series["loss"] for strategy in ("stored", "reconstructed"))
    assert ours == pytest.approx(stored, rel=1e-9)


def test_a_file_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "poem.txt"
    path.write_text("rose is a rose is a rose " * 200)
    label, source = split_data_option(f"roses={path}")
    assert (label, is_text(source)) == ("roses", True)
    assert bytes(load_text(source).tolist()) == path.read_bytes()
    assert train(data_path=source).metrics["train_tokens"] == 4_000


@pytest.mark.parametrize(
    ("case", "source", "said"),
    [
        (CASE, "digits", "revgpt-1m is trained on a text; give --data python-docs"),
        (CASE.replace(model="revnet-38", sequence_length=None, recipe="cifar"), TEXT, "revnet-38 is trained on images"),
    ],
)
def test_what_does_not_go_together(case: Case, source: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        open_supply(build_workload(case), source, image_size=8, validation_limit=0, loaders=0, share=Share())


def test_a_text_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("too short")
    with pytest.raises(UserError, match=r"a text of 9 bytes is too short for sequences of 16; it takes more than 85"):
        TextSupply(CASE, load_text(str(tmp_path / "t")))


def request(**changes: Any) -> Request:
    given: dict[str, Any] = {
        "models": ["revgpt-1m"], "pair": None, "strategies": (), "nulls": 1, "seed": 0, "seeds": 1, "recipe": None, "steps": 9,
        "epochs": None, "batch_size": None, "data": None, "images": None, "fields": {"sync_batch_norm": False},
        "options": {"loaders": 0, "drift_every": 0},
    }  # fmt: skip
    return Request(**given | changes)


def test_a_language_model_is_trained_on_text_by_itself() -> None:
    (case,) = request().cases(1)
    assert (case.recipe, case.optimizer, case.data, case.batch_size) == ("text", "adamw", TEXT, 16)
    assert request().worker_options()["data_path"] == TEXT
    models = [case.model for case in request(models=(), pair="revgpt-1m").cases(1)]
    assert models == ["gpt-1m", "revgpt-1m", "revgpt-1m", "revgpt-1m"]
    with pytest.raises(UserError, match="--images and --epochs are of images"):
        request(images=3).cases(1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": "digits"}, "revgpt-1m is trained on a text; give --data python-docs"),
        ({"models": ["revnet-38"], "data": TEXT}, "revnet-38 is trained on images, not on a text"),
        ({"recipe": "cifar", "data": TEXT}, "recipe cifar is of images, and revgpt-1m is trained on tokens"),
        ({"models": ["revnet-38"], "recipe": "text", "data": "digits"}, "recipe text is of texts"),
        ({"data": "factory"}, "revgpt-1m is of the catalogue, and factory is what a factory of yours draws"),
        ({"models": ["package.module:make"], "recipe": "text"}, "or --data factory for what its make_batch draws"),
    ],
)
def test_what_can_not_be_trained_is_said_before_anything_is_opened(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        request(**changes).cases(1)


def test_a_file_of_the_name_of_a_data_set_is_none_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text("x")
    assert not is_text("digits")


def test_each_network_has_the_recipe_of_its_kind() -> None:
    found = {
        name: recipe_of([name]) for name in ("revnet-38", "revnet-104", "revgpt-20m", "vit-1m", "revvit-22m", "a.b:c")
    }
    assert list(found.values()) == ["cifar", "imagenet", "text", "cifar", "imagenet", "cifar"]


def test_what_is_held_out_is_gone_through_in_steps_no_larger_than_those_of_the_training() -> None:
    supply = TextSupply(CASE.replace(accumulate=2), load_text(TEXT), limit=5)
    assert [len(tokens) for tokens, _ in supply.validation()] == [2, 2, 1]
