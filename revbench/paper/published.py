"""Published numbers and where each was published; nothing here is computed or measured by revbench."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GOMEZ_2017 = "Gomez, Ren, Urtasun, Grosse: The Reversible Residual Network, NeurIPS 2017, arXiv 1707.04585"


@dataclass(frozen=True)
class TableTwoRow:
    """One line of Table 2 of Gomez et al. 2017.

    Attributes:
        dataset: ``CIFAR`` or ``ImageNet``.
        model: its catalogue name.
        bottleneck: whether its units are bottlenecks.
        units: residual units in each group, as printed.
        channels: channels of stem and groups, as printed.
        parameters_millions: by number of classes, in millions, as printed (to two digits).
    """

    dataset: str
    model: str
    bottleneck: bool
    units: str
    channels: str
    parameters_millions: Mapping[int, str]


TABLE_2 = (
    TableTwoRow("CIFAR", "resnet-32", False, "5-5-5", "16-16-32-64", {10: "0.46", 100: "0.47"}),
    TableTwoRow("CIFAR", "revnet-38", False, "3-3-3", "32-32-64-112", {10: "0.46", 100: "0.48"}),
    TableTwoRow("CIFAR", "resnet-110", False, "18-18-18", "16-16-32-64", {10: "1.73", 100: "1.73"}),
    TableTwoRow("CIFAR", "revnet-110", False, "9-9-9", "32-32-64-128", {10: "1.73", 100: "1.74"}),
    TableTwoRow("CIFAR", "resnet-164", True, "18-18-18", "16-16-32-64", {10: "1.70", 100: "1.73"}),
    TableTwoRow("CIFAR", "revnet-164", True, "9-9-9", "32-32-64-128", {10: "1.75", 100: "1.79"}),
    TableTwoRow("ImageNet", "resnet-101", True, "3-4-23-3", "64-64-128-256-512", {1000: "44.5"}),
    TableTwoRow("ImageNet", "revnet-104", True, "2-2-11-2", "128-128-256-512-832", {1000: "45.2"}),
)

# Table 1: what the activations of L layers take; of Martens & Sutskever 2012 and of Chen et al. 2016 in the middle two.
TABLE_1_ACTIVATIONS: Mapping[str, str] = {
    "stored": "O(L)", "checkpointed": "O(√L)", "recursive": "O(log L)", "reconstructed": "O(1)",
}  # fmt: skip

# The same table: what computing one gradient of L layers takes.
TABLE_1_COMPUTATION: Mapping[str, str] = {
    "stored": "O(L)", "checkpointed": "O(L)", "recursive": "O(L log L)", "reconstructed": "O(L)",
}  # fmt: skip

# Tables 3 and 4: classification error in %, by network and data set; of ImageNet top-1, single crop.
ERRORS: Mapping[str, Mapping[str, str]] = {
    "resnet-32": {"CIFAR-10": "7.14", "CIFAR-100": "29.95"}, "revnet-38": {"CIFAR-10": "7.24", "CIFAR-100": "28.96"},
    "resnet-110": {"CIFAR-10": "5.74", "CIFAR-100": "26.44"}, "revnet-110": {"CIFAR-10": "5.76", "CIFAR-100": "25.40"},
    "resnet-164": {"CIFAR-10": "5.24", "CIFAR-100": "23.37"}, "revnet-164": {"CIFAR-10": "5.17", "CIFAR-100": "23.69"},
    "resnet-101": {"ImageNet": "23.01"}, "revnet-104": {"ImageNet": "23.10"},
}  # fmt: skip

RECONSTRUCTION_FLOPS_RATIO = "about 1.33"  # section 3.2: about 4N add-multiplies against 3N
RECONSTRUCTION_TIME_RATIO = "1.5 to 2"  # section 3.2, of the authors' own implementation

REVIEWS_2017 = "its reviews (NeurIPS 2017)"
BEHRMANN_2021 = "Behrmann et al. 2021 (Exploding inverses, arXiv 2006.09347)"
MEMCNN_2019 = "MemCNN 2019 (JOSS; CIFAR-10)"

# What is allocated after the forward pass of a training step on CIFAR-10, in MB as printed there, by network.
MEMCNN_KEPT_MEGABYTES: Mapping[str, float] = {
    "resnet-32": 238.6, "resnet-110": 810.7, "resnet-164": 2452.8,
    "revnet-38": 85.6, "revnet-110": 85.7, "revnet-164": 432.7,
}  # fmt: skip

MEMCNN_ISSUE_37 = "github.com/silvandeleemput/memcnn, issue 37"

# Minutes that a training on CIFAR-10 takes (MemCNN's README), by network.
MEMCNN_TRAINING_MINUTES: Mapping[str, int] = {
    "resnet-32": 111, "resnet-110": 171, "resnet-164": 299, "revnet-38": 129, "revnet-110": 222, "revnet-164": 441,
}  # fmt: skip
