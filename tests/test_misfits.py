"""What a network can't be called with is one line with shapes, whichever way it is looked at."""

from __future__ import annotations

import re

import pytest

from revbench.case import Case
from revbench.errors import UserError
from revbench.launch.doctor import examine
from revbench.prediction import predict
from revbench.runner.client import WorkerServer

# What is said beside PyTorch's own words.
SAID = {
    "no_batches": r"embedding \(Embedding\) takes integers from 0 to 49 and was given the batch, float\d\d \(4, 3, 32, 32\)"
    r" \(standard normal images, since the factory brings no make_batch; let it return \(module, make_batch, loss\)\)",
    "two_inputs": r"Masked takes \(ids, mask\) and was given the batch, int64 \(4, 7\)",
    "another_name": r"embedding \(Embedding\) takes integers from 0 to 49 and was given the batch, {input_ids: int64 \(4, 7\)};"
    r" it went in whole, since Tagger takes \(ids\)",
    "a_token_too_many": r"embedding \(Embedding\) takes integers from 0 to 49 and was given int64 \(4, 7\) from \d to 59;",
    "elsewhere": r"scale is a tensor on meta; make it a buffer \(register_buffer\), which moves with its module",
    "other_targets": r"outputs float\d\d \(28, 10\) and targets float\d\d \(3,\)",
}
NEEDS_VALUES = ("a_token_too_many",)  # a prediction has none


def misfit(name: str) -> Case:
    return Case(model=f"tests.misfits:{name}", batch_size=4)


@pytest.mark.parametrize("name", SAID)
def test_a_row_says_so(server: WorkerServer, name: str) -> None:
    for probe in ("memory", "drift"):
        found = server.measure([misfit(name)], probe)
        assert found["status"] == "crashed"
        assert re.search(SAID[name], found["message"])
        assert "\n" not in found["message"]


@pytest.mark.parametrize("name", [name for name in SAID if name not in NEEDS_VALUES])
def test_a_prediction_says_so(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=SAID[name]):
        predict(misfit(name))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", SAID)
def test_the_doctor_says_so(name: str) -> None:
    with pytest.raises(UserError, match=SAID[name]):
        examine(f"tests.misfits:{name}", batch_size=4)


def test_what_hides_how_it_is_made_still_fails_by_its_own_words(server: WorkerServer) -> None:
    found = server.measure([misfit("hidden")], "memory")
    assert found["message"] == "RuntimeError: mat1 and mat2 shapes cannot be multiplied (4x3072 and 3x3)"


def test_a_loss_that_is_a_module_says_so(server: WorkerServer) -> None:
    found = server.measure([misfit("other_targets_of_a_module")], "memory")
    assert found["message"].endswith("; the loss was given outputs float32 (28, 10) and targets float32 (3,)")


def test_a_loss_that_is_a_module_with_weights_goes_with_the_reference_into_float64(server: WorkerServer) -> None:
    found = server.measure([misfit("weighted").replace(strategy="reconstructed")], "drift", options={"draws": 2})
    assert found["status"] == "ok", found
    assert found["measurements"][0]["metrics"]["angle_degrees"] < 1e-3


def test_weights_without_values(server: WorkerServer) -> None:
    said = "has weights on the device meta, where they have no values; make it on the CPU"
    with pytest.raises(UserError, match=said):
        server.measure([misfit("without_values")], "memory")
    with pytest.raises(UserError, match=said):
        predict(misfit("without_values"))


def test_a_training_says_where_its_batches_are_from(server: WorkerServer) -> None:
    for name, mend in (
        ("a_token_too_many", "train on what its make_batch draws: --data factory"),
        ("no_batches", "bring a make_batch of its own"),
    ):
        case = misfit(name).replace(training_steps=2, data="digits")
        found = server.measure([case], "training", options={"evaluations": 1})
        assert re.search(
            rf"was given the batch, float32 \(4, 3, 32, 32\) \(of the data digits; {mend}\)", found["message"]
        )
