"""How the attention of diffusers' U-Nets is computed while they learn."""

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

#: Up to so many queries and keys the plain formulas are the faster ones on CPUs (benchmarks/attention_kernels.py).
SHORT = 128


class KeptAttention(AttnProcessor2_0):  # type: ignore[misc]  # diffusers has no types
    """Attention that keeps its probabilities for the backward pass, where PyTorch's fused kernels compute them again.

    It does so where that is faster: in bfloat16 on CPUs, whose fused backward pass is slow for short sequences. With
    ``always``, everywhere: for a middle block without normalization. Its logits reach tens of millions in a trained
    U-Net, where float32 is exact to 1; the fused kernels' exp(logit - log-sum-exp) then spoils the gradient, and at
    some inputs overflows under a finite loss. The block's few cells make it cheap to keep them.
    """

    def __init__(self, always: bool = False):
        super().__init__()
        self.always = always

    def __call__(
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """See the class; without gradients as diffusers does it, which reads the names of these arguments."""
        given = attn, hidden_states, encoder_hidden_states, attention_mask, temb
        if not torch.is_grad_enabled() or not (self.always or short_on_cpu(hidden_states, encoder_hidden_states)):
            return super().__call__(*given)
        with sdpa_kernel(SDPBackend.MATH):
            return super().__call__(*given)


def short_on_cpu(cells: Tensor, others: Tensor | None) -> bool:
    """Whether attention from cells (n, length, width) or (n, width, height, width) to ``others`` (n, length, width),
    None for the cells themselves, is short, and computed in bfloat16 on a CPU."""
    if cells.device.type != "cpu":
        return False
    precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else cells.dtype
    queries = cells.shape[1] if cells.ndim == 3 else cells[0, 0].numel()
    return precision is torch.bfloat16 and max(queries, 0 if others is None else others.shape[1]) <= SHORT


def keep_attention(network: nn.Module) -> None:
    """Have every attention layer of a network of diffusers use :class:`KeptAttention`, where nobody has chosen another
    way."""
    for layer in network.modules():
        if isinstance(layer, Attention) and type(layer.processor) is AttnProcessor2_0:
            layer.set_processor(KeptAttention())
