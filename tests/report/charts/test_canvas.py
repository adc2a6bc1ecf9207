"""What all pictures have in common: marks that can be read, words where somebody points, one look for one thing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import combinations

import pytest

from revbench.choices import ALL_STRATEGIES
from revbench.report.charts.canvas import canvas, power_of_ten, svg_of, with_tip
from revbench.report.colours import ARITHMETICS, ON_DARK, STRATEGIES, Look


@pytest.mark.parametrize(
    ("value", "mark"),
    [(1e-4, "10⁻⁴"), (0.1, "10⁻¹"), (1.0, "1"), (100.0, "100"), (1e12, "10¹²"), (2e5, ""), (0.0, "0")],
)
def test_a_mark_of_a_logarithmic_scale_is_no_formula(value: float, mark: str) -> None:
    assert power_of_ten(value) == mark


def test_words_stand_in_the_picture_and_ids_only_where_something_refers_to_them() -> None:
    with canvas(2.0) as (figure, axes):
        with_tip(axes.plot([1, 2], [1e-9, 1e3], "o"), '5 < 6 & "so"')
        axes.set_yscale("log")
        svg = svg_of(figure)
    assert '<title>5 &lt; 6 &amp; "so"</title>' in svg
    ids = set(re.findall(r' id="([^"]*)"', svg))
    assert ids <= set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
    with canvas(2.0) as (figure, axes):
        with_tip(axes.plot([1, 2], [1e-9, 1e3], "o"), '5 < 6 & "so"')
        axes.set_yscale("log")
        assert svg_of(figure) == svg, "the same bytes again"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def lightness(colour: str) -> float:
    """CIE L*, of which print in grey leaves nothing else."""
    y = luminance(colour)
    return 116 * float(y ** (1 / 3)) - 16 if y > 0.008856 else 903.3 * y


@pytest.mark.parametrize("palette", [STRATEGIES, ARITHMETICS])
def test_things_are_told_apart_in_grey(palette: Mapping[str, Look]) -> None:
    for (one, a), (other, b) in combinations(palette.items(), 2):
        apart = a.marker != b.marker and a.dashes != b.dashes
        assert apart or abs(lightness(a.colour) - lightness(b.colour)) > 10, (one, other)


def contrast(one: str, other: str) -> float:
    """By WCAG 2, of two colours."""
    darker, lighter = sorted(luminance(colour) + 0.05 for colour in (one, other))
    return lighter / darker


@pytest.mark.parametrize("palette", [STRATEGIES, ARITHMETICS])
def test_every_colour_can_be_seen_on_white_and_on_the_dark_page(palette: Mapping[str, Look]) -> None:
    """Three to one, as WCAG 2 asks of graphics (1.4.11), within a little on white."""
    for name, look in palette.items():
        assert contrast(look.colour, "#ffffff") > 2.6, name
        assert contrast(ON_DARK.get(look.colour, look.colour), "#14171a") > 3.5, name
    assert len(set(ON_DARK.values())) == len(ON_DARK)
    assert not set(ON_DARK.values()) & {look.colour for look in palette.values()}


def test_a_colour_means_one_thing() -> None:
    assert not {look.colour for look in STRATEGIES.values()} & {look.colour for look in ARITHMETICS.values()}
    assert set(ALL_STRATEGIES) - set(STRATEGIES) == set()
