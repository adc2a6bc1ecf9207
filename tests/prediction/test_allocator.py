from __future__ import annotations

import pytest

from revbench.case import Case
from revbench.prediction.allocator import CONFIGURATIONS, caveat, caveat_here
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
    for variable in CONFIGURATIONS[:3]:
        for name in CONFIGURATIONS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(variable, configuration)
        found = caveat_here()
        assert (found is None) == (said is None)
        assert said is None or f"is set to {said}, which" in str(found)


def test_two_variables_and_none_of_them_wins_for_certain() -> None:
    both = {"PYTORCH_ALLOC_CONF": "max_split_size_mb:64", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert "is set to max_split_size_mb:64, expandable_segments:True, which" in str(caveat(both))


def test_no_cache_at_all() -> None:
    assert "PYTORCH_NO_CUDA_MEMORY_CACHING=1" in str(caveat({"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}))
    assert caveat({"PYTORCH_NO_CUDA_MEMORY_CACHING": "0"}) is None


def test_a_backend_that_no_variable_names() -> None:
    assert "is set to backend:cudaMallocAsync, which" in str(caveat({"allocator": "cudaMallocAsync"}))
    assert caveat({"allocator": "native"}) is None


def test_it_is_said_beside_a_prediction(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    predictor = Predictor()
    for device, expected in (("cuda", True), ("cpu", False)):
        found = Estimates([predictor.predict(Case(model="revnet-38", batch_size=2, device=device))], {}, {}, {})
        show(found)
        assert ("expandable_segments:True" in str(found.to_json()["caveat"])) == expected
        assert ("expandable_segments:True" in capsys.readouterr().out) == expected
