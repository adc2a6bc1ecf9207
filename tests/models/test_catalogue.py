from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from revbench import UserError, build_model
from revbench.models import architecture
from revbench.models.residual import BATCH_NORM_EPSILON, PaddedPool
from revbench.paper.published import TABLE_2, TableTwoRow
from revbench.paper.residual import RESIDUAL
from revbench.workload import move_by_one_ulp

EXACT = {  # counted by hand from the rules of the paper and of the authors' code, not by this package
    ("resnet-32", 10): 464_154, ("resnet-32", 100): 470_004, ("revnet-38", 10): 464_890, ("revnet-38", 100): 475_060,
    ("resnet-110", 10): 1_727_962, ("resnet-110", 100): 1_733_812, ("revnet-110", 10): 1_729_194,
    ("revnet-110", 100): 1_740_804, ("resnet-164", 10): 1_703_258, ("resnet-164", 100): 1_726_388,
    ("revnet-164", 10): 1_748_778, ("revnet-164", 100): 1_794_948, ("resnet-50", 1000): 25_549_352,
    ("revnet-56", 1000): 27_553_128, ("resnet-101", 1000): 44_541_480, ("revnet-104", 1000): 45_428_072,
    ("resnet-152", 1000): 60_185_128,
}  # fmt: skip


@pytest.mark.parametrize(("name", "classes"), EXACT)
def test_parameter_counts_are_exact(name: str, classes: int) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=classes)
    assert sum(p.numel() for p in model.parameters()) == EXACT[name, classes]


def test_every_network_is_counted() -> None:
    assert {name for name, _ in EXACT} == set(RESIDUAL)


@pytest.mark.parametrize("row", TABLE_2, ids=lambda row: row.model)
def test_table_2_describes_the_catalogue(row: TableTwoRow) -> None:
    a = RESIDUAL[row.model]
    assert "-".join(map(str, a.units)) == row.units
    assert "-".join(map(str, (a.stem_channels, *a.channels))) == row.channels
    assert a.bottleneck == row.bottleneck
    for classes, millions in row.parameters_millions.items():
        ours = EXACT[row.model, classes] / 1e6
        digits = len(millions.partition(".")[2])
        if row.model == "revnet-104":  # the paper prints 45.2
            assert (millions, round(ours, 1)) == ("45.2", 45.4)
        else:
            assert round(ours, digits) == float(millions)


def test_pairs_are_of_unlike_families() -> None:
    for name, a in RESIDUAL.items():
        pair = RESIDUAL[a.pair]
        assert pair.family != a.family
        assert pair.bottleneck == a.bottleneck
        if name != "resnet-152":  # it shares revnet-104 with resnet-101
            assert pair.pair == name


@pytest.mark.parametrize("name", ["resnet-32", "revnet-38", "resnet-50", "revnet-56"])
def test_output_shape_and_depth(name: str) -> None:
    size = RESIDUAL[name].smallest_image * 2
    model = build_model(name, image_size=size, num_classes=7, strategy="stored")
    assert model(torch.randn(2, 3, size, size)).shape == (2, 7)
    assert len(model.trunk) == sum(RESIDUAL[name].units)


def test_shapes_through_the_groups() -> None:
    model = build_model("revnet-38", strategy="stored").eval()
    x1, x2 = model.stem(torch.randn(1, 3, 32, 32)).chunk(2, 1)
    shapes = []
    for unit in model.trunk:
        x1, x2 = unit(x1, x2)
        assert x1.shape == x2.shape
        shapes.append((x1.shape[1] + x2.shape[1], x1.shape[2]))
    assert shapes == [(32, 32)] * 3 + [(64, 16)] * 3 + [(112, 8)] * 3


def test_padded_pool_is_the_mean_with_zero_channels_on_both_sides() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4)
    out = PaddedPool(1, 3, 2)(x)
    assert out.shape == (1, 3, 2, 2)
    assert out[:, [0, 2]].abs().sum() == 0
    assert out[0, 1].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_initialisation_is_he_et_al_fan_out() -> None:
    model = build_model("resnet-164")
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 8000:
            variance = 2 / (module.kernel_size[0] * module.kernel_size[1] * module.out_channels)
            assert module.weight.var().item() == pytest.approx(variance, rel=0.1)
            assert module.bias is None
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.eps == BATCH_NORM_EPSILON == 1e-3
    assert model.head[-1].bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("name", "overrides", "word"),
    [
        ("revnet-39", {}, "did you mean 'revnet-38'"),
        ("revnet-38", {"depth": 3}, "depth"),
        ("revnet-38", {"num_classes": 0}, "num_classes"),
        ("revnet-38", {"num_classes": True}, "num_classes"),
        ("revnet-38", {"image_size": 3}, "at least 4"),
        ("resnet-50", {"image_size": 31}, "at least 32"),
        ("revnet-38", {"units": (3, 3)}, "groups"),
        ("revnet-38", {"units": (3, 0, 3)}, "units"),
        ("revnet-38", {"units": 3}, "list"),
        ("revnet-38", {"channels": (32, 64, 111)}, "even"),
        ("revnet-38", {"channels": (32, 64, 66)}, "multiple of 4"),
        ("resnet-32", {"channels": (16, 8, 64)}, "grow"),
        ("resnet-32", {"bottleneck": "yes"}, "bottleneck"),
        ("resnet-32", {"strategy": "reconstructed"}, "no reversible block"),
        ("revnet-38", {"strategy": "restored"}, "unknown strategy"),
        ("revnet-38", {"strategy": "stored", "nonreversible": "recomputed"}, "must be kept"),
        ("revnet-38", {"nonreversible": "lost"}, "nonreversible"),
    ],
)
def test_a_wrong_value_gets_one_clear_line(name: str, overrides: dict[str, object], word: str) -> None:
    with pytest.raises(UserError) as caught:
        build_model(name, **overrides)
    message = str(caught.value)
    assert word in message
    assert "\n" not in message


@given(
    units=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    growth=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    bottleneck=st.booleans(),
    family=st.sampled_from(["resnet-32", "revnet-38"]),
)
def test_depth_and_width_can_be_overridden(units: list[int], growth: list[int], bottleneck: bool, family: str) -> None:
    channels, width = [], 8
    for i in range(len(units)):
        width += 4 * growth[i]
        channels.append(width)
    model = build_model(
        family, units=units, channels=channels, stem_channels=8, bottleneck=bottleneck, image_size=8, strategy="stored"
    )
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 10)
    assert model.architecture == architecture(
        family, units=units, channels=channels, stem_channels=8, bottleneck=bottleneck, image_size=8
    )


def test_an_ulp_is_one_ulp_of_one_weight() -> None:
    model = build_model("resnet-32")
    before = [p.detach().clone() for p in model.parameters()]
    move_by_one_ulp(model, 5)
    changed = [(a, b) for a, b in zip(before, model.parameters(), strict=True) if not torch.equal(a, b)]
    assert len(changed) == 1
    a, b = changed[0]
    (i,) = torch.nonzero((a != b).flatten()).flatten().tolist()
    assert torch.nextafter(a.flatten()[i], torch.tensor(torch.inf)) == b.flatten()[i]
