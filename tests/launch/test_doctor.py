"""`revbench.doctor`: a module, a function, a name; the death of the process; what a test says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import revbench
from revbench.checkup.declared import CHECKS
from tests.checkup.faulty import Network, network

FEW = ("gradient", "dropout")


def half() -> nn.Module:
    return nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Tanh())


class Masked(nn.Module):
    """Takes tokens and a mask by name, as networks of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.chain = revbench.reversible([(half(), half()) for _ in range(2)], split_dim=-1)
        self.head = nn.Linear(8, 10)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(self.chain(self.embedding(input_ids))) * attention_mask[..., None]}


def test_a_module_with_its_batch() -> None:
    torch.manual_seed(0)
    examination = revbench.doctor(Network(2, ""), torch.randn(6, 3), checks=FEW)
    assert [(f.check, f.verdict) for f in examination.findings] == [("gradient", "passed"), ("dropout", "passed")]
    assert examination.ok
    examination.assert_ok()


def test_a_batch_of_several_inputs_by_name() -> None:
    torch.manual_seed(0)
    batch = {"input_ids": torch.randint(10, (3, 5)), "attention_mask": torch.ones(3, 5)}
    examination = revbench.doctor(Masked(), batch, checks=[*FEW, "input_gradient", "shared_input", "readable"])
    assert {f.verdict for f in examination.findings} == {"passed"}, str(examination)


def test_a_function_that_brings_all_of_it() -> None:
    examination = revbench.doctor(lambda: network("masks"), checks=FEW)
    assert not examination.ok
    with pytest.raises(
        AssertionError, match=r"dropout: Are random numbers .* No: 4 masks in backward are not those of forward"
    ):
        examination.assert_ok()
    with pytest.raises(AssertionError, match=r"It means: With dropout, .*\n  Mend: Set dropout to 0"):
        examination.assert_ok("gradient")
    examination.assert_ok("dropout")
    with pytest.raises(revbench.UserError, match="unknown check 'droput'"):
        examination.assert_ok("droput")


def test_a_process_that_dies_is_a_finding_and_the_rest_goes_on() -> None:
    seen: list[Any] = []
    examination = revbench.doctor(
        f"{network.__module__}:network(fault=dies)", checks=["gradient", "buffers", "depth"], show=seen.append
    )
    assert [f.verdict for f in examination.findings] == ["failed"] * 3
    assert all("the process died" in f.words and "SIGSEGV" in f.words for f in examination.findings)
    assert seen == list(examination.findings)


def test_the_loss_of_a_batch_without_one_is_in_float64() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256))
    revbench.doctor(model, torch.randn(4, 256), checks=["gradient", "frozen"]).assert_ok()


def test_it_is_plain_data() -> None:
    examination = revbench.doctor(lambda: network("masks"), checks=FEW)
    found = json.loads(json.dumps(examination.to_json()))
    assert found["ok"] is False
    passed, failed = found["findings"]
    assert set(passed) == {"check", "question", "verdict", "found"}
    assert failed["mend"] == CHECKS["dropout"].mend


def test_a_field_that_nobody_knows() -> None:
    with pytest.raises(revbench.UserError, match="unknown field of a case 'batchsize'; did you mean 'batch_size'"):
        revbench.doctor("resnet-32", batchsize=3)


class NeedsArguments(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)


@pytest.mark.parametrize(
    ("what", "batch", "message"),
    [
        ("revbench.zoo:no_such", None, "can't be imported: .*no_such"),
        ("tests.launch.test_doctor:NeedsArguments", None, "can't be called so: missing a required argument: 'width'"),
        ("resnet-32", torch.ones(2), "batch and loss are of a module or a function that is given itself"),
        (nn.Linear(3, 3), torch.randn(4, 5), "can't be called with its batch, both in float64: .*4x5.*3x3"),
        (nn.Bilinear(3, 3, 3), (torch.randn(4, 3), None), r"missing 1 .*takes \(input1, input2\) and was given the batch"),
        (nn.ReLU(), torch.randn(4, 3), "ReLU has no parameter that needs gradient"),
        (nn.Linear(3, 3), torch.full((4, 3), torch.inf), "the loss of Linear is (inf|nan); give weights and a batch"),
        (3, None, "what is measured is a case, a name, a module or a function, not a int"),
    ],
)  # fmt: skip
def test_what_can_not_be_examined_is_said_in_one_line(what: Any, batch: Any, message: str) -> None:
    with pytest.raises(revbench.UserError, match=message) as found:
        revbench.doctor(what, batch, checks=["gradient"])
    assert "\n" not in str(found.value)
