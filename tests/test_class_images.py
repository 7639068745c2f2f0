"""Images of the class, which keep a prior from forgetting it: drawn once, also by several processes, and checked when
read.
"""

import pytest
import torch

from text_folder import tiny_prior
from vcgen.diffusion.text_prior import TextPrior
from vcgen.errors import UserError
from vcgen.personalization.class_images import Preservation, draw_class_images, read_class_images


def test_class_images_are_drawn_once_and_only_those_that_are_missing(tmp_path):
    prior, options = tiny_prior(), Preservation(count=5, steps=2, batch_size=2)
    device = torch.device("cpu")
    draw_class_images(prior, "car", options, tmp_path / "one", 0, device)
    images = read_class_images(tmp_path / "one", 5)
    assert images.shape == (5, 3, 16, 16) and len({image.numpy().tobytes() for image in images}) == 5
    drawn = []
    prior.sample = lambda prompts, *rest: (drawn.append(len(prompts)), TextPrior.sample(prior, prompts, *rest))[1]
    draw_class_images(prior, "car", options, tmp_path / "one", 0, device)
    assert drawn == []
    (tmp_path / "one" / "00002.png").unlink()
    draw_class_images(prior, "car", options, tmp_path / "one", 0, device)
    assert drawn == [2] and torch.equal(read_class_images(tmp_path / "one", 5), images)
    for rank in range(2):  # two processes draw the same images between them
        draw_class_images(prior, "car", options, tmp_path / "two", 0, device, rank, 2)
    assert torch.equal(read_class_images(tmp_path / "two", 5), images)
    with pytest.raises(UserError, match="another noun"):
        draw_class_images(prior, "fish", options, tmp_path / "one", 0, device)
    (tmp_path / "one" / "00001.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"00001.png: cannot be read"):
        read_class_images(tmp_path / "one", 5)
