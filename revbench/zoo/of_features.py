"""Packages whose blocks are shown on vectors of features: of nodes of a graph, of a density."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from revbench.zoo.making import Made, MadeOfTwo, imported, normal, setter_of


def torch_geometric(blocks: int = 3) -> MadeOfTwo:
    """Returns a chain of PyTorch Geometric's GroupAddRev over two groups (Li et al. 2021), each a function of features."""
    package = imported("torch_geometric.nn")

    class Graph(nn.Module):
        """A linear layer on the mean of the neighbours in a ring, which the blocks hand their edges to."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear, self.dropout = nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Dropout(0.5)

        def forward(self, x: Tensor, edges: Tensor) -> Tensor:
            found: Tensor = self.dropout(self.linear(self.norm(x).relu()))
            return found + torch.zeros_like(x).index_add(0, edges[1], found[edges[0]])

        def reset_parameters(self) -> None:
            """PyTorch Geometric calls it of the copies that it makes for further groups."""
            self.norm.reset_parameters()
            self.linear.reset_parameters()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 16), nn.Linear(16, 4)
            self.blocks = nn.ModuleList(package.GroupAddRev(Graph(), num_groups=2) for _ in range(blocks))

        def forward(self, x: Tensor) -> Tensor:
            nodes = torch.arange(len(x), device=x.device)
            edges = torch.stack((nodes, nodes.roll(1)))
            x = self.stem(x)
            for block in self.blocks:
                x = block(x, edges)
            found: Tensor = self.head(x)
            return found

    return Whole(), normal((4,), (4,)), mse_loss, setter_of("disable", True, False)


def freia(blocks: int = 3) -> Made:
    """Returns a chain of FrEIA's affine couplings, which keeps its activations: a stored reversible network."""
    framework, modules = imported("FrEIA.framework"), imported("FrEIA.modules")

    def subnet(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(inputs, 16), nn.ReLU(), nn.Linear(16, outputs))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = framework.SequenceINN(8)
            for _ in range(blocks):
                self.flow.append(modules.AllInOneBlock, subnet_constructor=subnet)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.flow(x)[0]
            return found

    return Whole(), normal((8,), (8,)), mse_loss
