"""Losses on random views that need no prior."""

import torch
from torch import Tensor

from vcgen.losses.scene import SceneWeights, depth_contrast, emptiness, normal_smoothness, opacity_cost, opacity_entropy
from vcgen.rendering.shading import ShadedRendering


def regularizers(views: list[ShadedRendering], weights: SceneWeights, size: int) -> dict[str, Tensor]:
    """The losses by their names in the weights, which state their reductions; those that cost much are left out where
    they weigh nothing. views: square, ``size`` pixels wide.
    """
    alpha = torch.cat([view.rays.alpha for view in views])
    losses = {"opacity": opacity_cost(alpha), "entropy": opacity_entropy(alpha)}
    if views[0].normals is not None:
        normals = torch.cat([view.normals for view in views if view.normals is not None])
        losses["smoothness"] = normal_smoothness(normals.mT.unflatten(-1, (size, size)))
        losses["orientation"] = torch.cat([one.orientation for one in views if one.orientation is not None]).mean()
    if weights.emptiness:
        losses["emptiness"] = emptiness(torch.cat([one.weights for one in views if one.weights is not None]))
    if weights.contrast:
        depth = torch.cat([view.rays.depth for view in views])
        losses["contrast"] = depth_contrast(*(x.unflatten(-1, (size, size)) for x in (depth, alpha)))
    return losses
