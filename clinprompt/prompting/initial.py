"""Initial values of trained tensors, drawn from a generator of one's own."""

from collections.abc import Callable

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


def truncated_normal(*shape: int, std: float = 0.02, generator: torch.Generator) -> nn.Parameter:
    """A parameter drawn from N(0, std²) within ±2."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(shape), std=std, generator=generator))


def attention(width: int, heads: int, generator: torch.Generator) -> nn.MultiheadAttention:
    """Attention over [B, n, width] with biases, with torch's own initial values."""
    layer = nn.utils.skip_init(nn.MultiheadAttention, width, heads, batch_first=True)
    nn.init.xavier_uniform_(layer.in_proj_weight, generator=generator)
    nn.init.uniform_(layer.out_proj.weight, -(width**-0.5), width**-0.5, generator=generator)
    for bias in (layer.in_proj_bias, layer.out_proj.bias):
        nn.init.zeros_(bias)
    return layer


@torch.no_grad()
def like_projection(layer: nn.Linear, project: Callable[[Tensor], Tensor], device: torch.device) -> None:
    """Give a layer the weights of a frozen projection [..., d] -> [..., e] on a device.

    A projection that is not affine, as the two layers of some towers, leaves the layer as it is.
    """
    d = layer.in_features
    bias = project(torch.zeros(1, d, device=device))
    rows = project(torch.eye(d, device=device)) - bias
    probe = torch.linspace(-1, 1, d, device=device)[None]
    if torch.allclose(project(probe), probe @ rows + bias, rtol=1e-3, atol=1e-4):
        layer.weight.copy_(rows.T)
        layer.bias.copy_(bias[0])
