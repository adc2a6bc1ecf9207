"""Reversible networks that others wrote, small, as factories: what the doctor is shown on.

A case names one as ``revbench.zoo:memcnn`` or ``revbench.zoo:memcnn(blocks=9)``. Each package is used as its own documentation
says, by the people who wrote it and whom we thank; the functions inside are plain layers. The packages are of the extra ``zoo``.
"""

from revbench.zoo.of_features import freia, torch_geometric
from revbench.zoo.of_images import iunets, memcnn, momentumnet, pytorchcv, revbench, revlib, revtorch
from revbench.zoo.of_sequences import performer_pytorch, reformer_pytorch, transformers_reformer
from revbench.zoo.of_torch import TORCH_WAYS, torch_recomputation

__all__ = [
    "TORCH_WAYS",
    "freia",
    "iunets",
    "memcnn",
    "momentumnet",
    "performer_pytorch",
    "pytorchcv",
    "reformer_pytorch",
    "revbench",
    "revlib",
    "revtorch",
    "torch_geometric",
    "torch_recomputation",
    "transformers_reformer",
]
