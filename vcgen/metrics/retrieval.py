"""The rank of the right one among many, of which recall and R-precision are made."""

from torch import Tensor


def ranks(scores: Tensor, truth: Tensor) -> Tensor:
    """How many candidates score at least as high as the right one, itself left out: (n,), 0 is best.

    scores: (n, candidates). truth: (n,) int64, the right candidate. Recall at k (R@k) is the mean of ``ranks < k``;
    DreamFusion's R-precision (arXiv 2209.14988) is R@1 of renderings among prompts. Ties count against, so that scores
    that are all equal are worth nothing, and so are NaNs."""
    right = scores.gather(1, truth[:, None])
    return (~(scores < right)).sum(1) - 1
