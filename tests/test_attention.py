"""Attention that keeps its probabilities while a network learns on a CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vcgen.diffusion.attention import SHORT, KeptAttention, keep_attention

FUSED = "aten._scaled_dot_product_flash_attention_for_cpu.default"


class Names(TorchDispatchMode):
    """Of the operations that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function: Callable[..., Any], _: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(str(function))
        return function(*args, **(kwargs or {}))


def layer(cross: bool = False) -> Attention:
    torch.manual_seed(0)
    made = Attention(32, cross_attention_dim=32 if cross else None, heads=2, dim_head=16)
    keep_attention(made)
    return made


def fused(made: Attention, *given: Tensor, precision: torch.dtype = torch.bfloat16) -> bool:
    with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16), Names() as names:
        made(*given)
    return FUSED in names.seen


@pytest.mark.parametrize(
    ("shape", "expected"), [((2, SHORT, 32), False), ((2, SHORT + 1, 32), True), ((2, 32, 8, 16), False)]
)
def test_short_sequences_are_written_out_where_a_network_learns_in_bfloat16(shape, expected):
    made, cells = layer(), torch.randn(shape)
    assert fused(made, cells) == expected
    assert fused(made, cells, precision=torch.float32)
    with torch.no_grad():
        assert fused(made, cells)


@pytest.mark.parametrize(("tokens", "expected"), [(SHORT, False), (SHORT + 1, True)])
def test_what_is_attended_to_counts_too(tokens, expected):
    assert fused(layer(cross=True), torch.randn(2, 16, 32), torch.randn(2, tokens, 32)) == expected


def test_gradients_are_those_of_diffusers():
    made, cells, gradients = layer(), torch.randn(2, 64, 32), []
    for processor in (made.processor, AttnProcessor2_0(), AttnProcessor()):
        made.set_processor(processor)
        given = cells.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            (made(given).float() * torch.arange(32)).square().sum().backward()
        gradients.append(given.grad)
    for other in gradients[1:]:
        torch.testing.assert_close(gradients[0], other, rtol=0, atol=0.02 * float(other.abs().max()))


def test_another_choice_of_the_owner_stays():
    made = layer()
    assert isinstance(made.processor, KeptAttention)
    made.set_processor(AttnProcessor())
    keep_attention(made)
    assert isinstance(made.processor, AttnProcessor)
