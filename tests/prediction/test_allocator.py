from __future__ import annotations

import pytest

from revbench.case import Case
from revbench.prediction.allocator import caveat, caveat_here
from revbench.prediction.display import show
from revbench.prediction.estimates import Estimates
from revbench.prediction.predictor import Predictor


@pytest.mark.parametrize(
    ("configuration", "said"),
    [
        ("expandable_segments:True", "expandable_segments:True"),
        ("garbage_collection_threshold:0.8,max_split_size_mb:512", "max_split_size_mb:512"),
        ("roundup_power2_divisions:[256:1,512:2,>:4]", "roundup_power2_divisions:[256:1,512:2,>:4]"),
        ("backend:cudaMallocAsync", "backend:cudaMallocAsync"),
        ("expandable_segments:False,backend:native", None),
        ("garbage_collection_threshold:0.8", None),
        ("", None),
    ],
)
def test_what_changes_the_blocks_is_said(monkeypatch: pytest.MonkeyPatch, configuration: str, said: str | None) -> None:
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", configuration)
    found = caveat_here()
    assert (found is None) == (said is None)
    assert said is None or f"is set to {said}, which" in str(found)


def test_a_backend_that_no_variable_names() -> None:
    assert "backend:cudaMallocAsync" in str(caveat({"allocator": "cudaMallocAsync", "allocator_configuration": None}))
    assert caveat({"allocator": "native", "allocator_configuration": None}) is None


def test_it_is_said_beside_a_prediction(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    predictor = Predictor()
    for device, expected in (("cuda", True), ("cpu", False)):
        show(Estimates([predictor.predict(Case(model="revnet-38", batch_size=2, device=device))], {}, {}, {}))
        assert ("expandable_segments:True" in capsys.readouterr().out) == expected
