"""Perp-Neg (arXiv 2304.04968): prompts of other views are negative prompts, by the part of their guidance that is
perpendicular to that of this view's prompt.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Of the weights' decay between front and side: its scale, and everywhere its rate. threestudio's numbers.
SCALE, RATE = 4.0, 0.5


class OtherViews(NamedTuple):
    """Prompts that are led away from. text: (n, k, length, width), as the network attends to it; weights: (n, k), not
    negative.
    """

    text: Tensor
    weights: Tensor


def perpendicular(vectors: Tensor, direction: Tensor) -> Tensor:
    """The part of vectors (n, k, ...) that is perpendicular to ``direction`` (n, ...), as flat vectors; all of them
    where the direction is 0.
    """
    flat, along = vectors.flatten(2), direction.flatten(1)[:, None]
    square = along.square().sum(-1, keepdim=True)
    share = (flat * along).sum(-1, keepdim=True) / square.clamp(min=torch.finfo(square.dtype).tiny)
    return (flat - share * along).reshape(vectors.shape)


def combined(without: Tensor, given: Tensor, others: Tensor, weights: Tensor, guidance_scale: float) -> Tensor:
    """u + s (d - sum of w_i times the perpendicular part of d_i), with d = c - u and d_i = c_i - u (algorithm 1).

    without, given: the outputs u and c (n, ...). others: c_i (n, k, ...). weights: w_i (n, k). Outputs may be noise or
    v: for both the differences are the same up to a factor.
    """
    main = given - without
    parts = perpendicular(others - without[:, None], main)
    against = (weights.reshape(*weights.shape, *[1] * (main.ndim - 1)) * parts).sum(1)
    return without + guidance_scale * (main - against)


def guided(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    noisy: Tensor,
    timesteps: Tensor,
    text: Tensor,
    unconditional: Tensor,
    others: OtherViews,
    guidance_scale: float,
) -> Tensor:
    """See :func:`combined`; the 2 + k texts of each of ``noisy`` (n, C, h, w) pass the network as one batch."""
    count, kinds = others.weights.shape
    texts = torch.cat([unconditional.expand_as(text), text, others.text.transpose(0, 1).flatten(0, 1)])
    outputs = network(noisy.repeat(2 + kinds, 1, 1, 1), timesteps.repeat(2 + kinds), texts).unflatten(0, (-1, count))
    return combined(outputs[0], outputs[1], outputs[2:].transpose(0, 1), others.weights, guidance_scale)


def view_weights(azimuth: Tensor) -> tuple[Tensor, Tensor]:
    """What the prompts of front, side and back weigh for cameras at azimuths (n,), degrees from the front.

    Returns the mixture (n, 3) that is the prompt of a camera, linear between the nearest two, and the weights (n, 2) of
    front and side as prompts that are led away from, both continuous. With r from 1 at the front to 0 at the side these
    are 4 (e^(-r/2) - e^(-1/2)) and the same of 1 - r; with r from 1 at the side to 0 at the back, e^(-r/2) + c and
    e^(-r/2) - e^(-1/2), where c makes the front's weight continuous at the side.
    """
    turn = ((azimuth + 180) % 360 - 180).abs() / 90  # 0 at the front, 1 at the side, 2 at the back
    mixture = torch.stack([(1 - turn).clamp(min=0), 1 - (turn - 1).abs(), (turn - 1).clamp(min=0)], -1)
    ahead, last = turn < 1, math.exp(-RATE)

    def decay(fraction: Tensor) -> Tensor:
        return (-RATE * fraction).exp() - last

    front = torch.where(ahead, SCALE * decay(1 - turn), decay(2 - turn) + SCALE * (1 - last))
    side = torch.where(ahead, SCALE * decay(turn), decay(2 - turn))
    return mixture, torch.stack([front, side], -1)
