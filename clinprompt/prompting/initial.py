"""Initial values of trained tensors, drawn from a generator of one's own."""

import torch
from torch import Tensor, nn


def linear_parameters(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A weight [outputs, inputs] and then a bias [outputs] from U(±1/√inputs), as torch's linear layer draws them."""
    bound = inputs**-0.5
    weight, bias = torch.empty(outputs, inputs), torch.empty(outputs)
    return weight.uniform_(-bound, bound, generator=generator), bias.uniform_(-bound, bound, generator=generator)


def linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer with these values; without a bias, none is drawn."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def normal(*shape: int, std: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn from N(0, std²)."""
    return nn.Parameter(torch.randn(shape, generator=generator) * std)
