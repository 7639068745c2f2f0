"""The attention of the U-Net's middle block: normalized, and its gradients where it is not, as in older models."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from vcgen.checkpoints import model_folder
from vcgen.diffusion.attention import KeptAttention
from vcgen.diffusion.base import Condition
from vcgen.diffusion.prior import ViewPrior
from vcgen.errors import UserError


def prior(size: float) -> ViewPrior:
    """With queries and keys of the middle block ``size`` times as large as new ones."""
    torch.manual_seed(0)
    made = ViewPrior(
        channels=(16, 32), attention=(False, True), input_attention=False, sigma_data=0.25, size=16, middle_norm=False
    )
    middle = made.unet.mid_block.attentions[0]
    with torch.no_grad():
        for layer in (middle.to_q, middle.to_k):
            layer.weight.mul_(size)
    return made


def learn(made: ViewPrior, precision: torch.dtype) -> tuple[float, list[torch.Tensor]]:
    """A training loss, and the gradients of the middle block's attention, by which it is learned."""
    torch.manual_seed(0)
    condition = Condition(torch.rand(4, 4, 16, 16) * 2 - 1, None, torch.ones(4))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is torch.bfloat16):
        loss = made.loss(torch.rand(4, 3, 16, 16), condition, torch.Generator().manual_seed(0))[0].mean()
    loss.backward()
    middle = made.unet.mid_block.attentions[0]
    return float(loss.detach()), [layer.weight.grad for layer in (middle.to_q, middle.to_k, middle.to_v)]


def test_what_every_attention_of_a_new_u_net_sees_is_normalized():
    """However large the features that come in, queries and keys stay what their weights make of unit variance."""
    torch.manual_seed(0)
    made = ViewPrior(channels=(16, 32), attention=(False, True), input_attention=False, size=16)
    features = torch.randn(2, 32, 8, 8)
    attending = [module for name, module in made.unet.named_modules() if name.endswith("attentions.0")]
    assert len(attending) == 3 and made.unet.mid_block.attentions[0] in attending
    for module in attending:
        small, large = (module(size * features) - size * features for size in (1.0, 1e3))
        torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-3)
    old = prior(1.0).unet.mid_block.attentions[0]
    assert not torch.allclose(old(features) - features, old(1e3 * features) - 1e3 * features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("size", [1e3, 1e5])
def test_the_gradient_of_a_finite_loss_is_finite(size, precision):
    loss, gradients = learn(prior(size), precision)
    assert loss < 20 and all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_the_gradient_is_that_of_attention_as_it_is_written():
    kept, written = prior(1e3), prior(1e3)
    written.unet.mid_block.attentions[0].set_processor(AttnProcessor())
    (loss, gradients), (expected, others) = (learn(made, torch.float32) for made in (kept, written))
    assert loss == pytest.approx(expected, abs=1e-5)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_nothing_changes_where_nothing_is_learned():
    made, condition = prior(30.0), Condition(torch.rand(2, 4, 16, 16), None, torch.ones(2))
    inputs = torch.randn(2, 3, 16, 16), torch.tensor([10, 900]), condition
    middle = made.unet.mid_block.attentions[0]
    assert isinstance(middle.processor, KeptAttention)
    with torch.no_grad():
        found = made(*inputs)
        middle.set_processor(AttnProcessor2_0())
        assert torch.equal(found, made(*inputs))


def test_a_model_of_before_is_told_what_it_lacks(tmp_path):
    old = shutil.copytree(Path(__file__).parents[1] / "data" / "pretrained" / "cars64", tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["init_args"]["prior"]["init_args"]["middle_norm"]
    (old / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r'group_norm.*"middle_norm": false in its init_args in config\.json'):
        model_folder.load(old)
