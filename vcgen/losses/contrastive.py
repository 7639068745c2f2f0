"""The contrastive loss of CLIP (arXiv 2103.00020), for captions that several images of a batch share."""

from torch import Tensor


def contrastive(logits: Tensor, positives: Tensor) -> Tensor:
    """InfoNCE in both directions, each with all its positives (as arXiv 2004.11362): mean over images, and over texts,
    of the mean over positives of -log softmax; the mean of both, ().

    logits: (images, texts). positives: (images, texts) bool, where a text holds for an image; one at least in every row
    and column. With one positive each, on the diagonal, this is CLIP's loss."""
    weights = positives.to(logits.dtype)
    by_image = (logits.log_softmax(1) * weights).sum(1) / weights.sum(1)
    by_text = (logits.log_softmax(0) * weights).sum(0) / weights.sum(0)
    return -(by_image.mean() + by_text.mean()) / 2
