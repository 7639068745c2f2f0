"""GeNVS: what the prior is shown, what it teaches the field, images drawn along a path."""

import pytest
import torch

from small_genvs import DISTANCE, SIDE, cameras, context, encoder, generator, prior
from vcgen.api import Pipeline
from vcgen.data.input_camera import InputCamera
from vcgen.diffusion.prior import ViewPrior
from vcgen.encoders.scene_triplane import SceneTriplane
from vcgen.errors import UserError
from vcgen.fields.triplane import TriplaneDecoder
from vcgen.rendering.volume import RenderOptions, render_image
from vcgen.systems.genvs import GeNVS
from vcgen.systems.nerfdiff import NerfDiff, PriorOptions
from vcgen.types import Example


def system(**options) -> GeNVS:
    made = encoder()
    return GeNVS(made, RenderOptions(4), rays_per_view=16, **({"prior": prior()} | options)).eval()


def test_the_prior_is_shown_features_over_nothing_and_the_opacity():
    model, target = system(), cameras([20.0, 70.0])
    scene = model.field(context())
    with torch.no_grad():
        seen = model.render_condition(scene, target, (SIDE, SIDE))
        expected = render_image(scene.features, target, (SIDE, SIDE), RenderOptions(4), background=0.0)
    assert torch.equal(seen.rgb, expected.rgb) and seen.rgb.shape[2] == 4
    given = model.prior.condition(seen, context(), target.near, target.far)
    assert torch.equal(given.maps, torch.cat([seen.rgb, 2 * seen.alpha - 1], 2)[0])
    with pytest.raises(UserError, match=r"prior.features is 5, the scene has 4 channels: set it to 4"):
        prior(features=5).condition(seen, context(), target.near, target.far)


def test_the_priors_loss_reaches_the_volumes_where_it_may():
    model = system(prior_options=PriorOptions(field_gradient_from=0))
    losses = model.losses(Example(context(), context(1)), generator())
    assert losses.keys() == {"rgb", "denoising"}
    losses["denoising"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder.decoder.parameters())
    assert model.encoder.skip.weight.grad.abs().sum() > 0


def test_along_one_camera_is_a_sample_and_a_sample_without_strength_is_the_color_rendering():
    model, target = system(), cameras([20.0])
    one, other = (draw(context(), target, generator(), steps=2) for draw in (model.sample, model.sample_along))
    assert torch.equal(one, other)
    with torch.no_grad():
        seen = model.render(model.field(context()), target, (SIDE, SIDE)).rgb
    torch.testing.assert_close(model.sample(context(), target, generator(), strength=0.0), seen.clamp(0, 1))


def test_along_a_path_each_image_is_given_the_inputs_the_last_one_and_up_to_five_earlier_ones():
    model, target = system(), cameras([30.0 * i for i in range(9)])
    calls, wanted = [], torch.rand(9, 3, SIDE, SIDE, generator=generator(5))

    def sample(given, camera, *_):
        calls.append((given, camera))
        return wanted[len(calls) - 1][None, None]

    model.sample = sample
    drawn = model.sample_along(context(2), target, generator())
    assert torch.equal(drawn[0], wanted)
    assert [given.cameras.shape[1] for given, _ in calls] == [2, 3, 4, 5, 6, 7, 8, 8, 8]
    known = torch.cat([context(2).images[0], wanted])
    for number, (given, camera) in enumerate(calls):
        images, inputs = given.images[0], context(2).images[0]
        assert torch.equal(images[:2], inputs) and torch.equal(camera.c2w, target.c2w[:, number : number + 1])
        if number:
            assert torch.equal(images[2], wanted[number - 1])
        places = [int((known - image).abs().sum((1, 2, 3)).argmin()) for image in images]
        assert len(set(places)) == len(places) and max(places) < 2 + number
        assert torch.equal(given.cameras.c2w[0, 2:], target.c2w[0][torch.tensor(places[2:], dtype=torch.long) - 2])


def test_pipelines_draw_along_a_path_where_the_model_can():
    model = system()
    model.config = {"image_size": (SIDE, SIDE), "background": 1.0}
    image = torch.rand(SIDE, SIDE, 4, generator=generator()).numpy()
    pipeline = Pipeline(model, InputCamera(1.0, DISTANCE, 20.0, 0.8, 1.8))
    path = pipeline.cameras([0, 10])
    drawn = pipeline.sample(image, path, steps=2, along=True)
    given = pipeline.context(image)
    assert torch.equal(drawn, model.sample_along(given, path.reshape(1, 2), generator(), steps=2)[0])
    assert not torch.equal(drawn[1], pipeline.sample(image, path, steps=2)[1])
    with pytest.raises(UserError, match="draws images each by itself"):
        NerfDiff(encoder()).sample_along(given, path.reshape(1, 2), generator())


@pytest.mark.parametrize("train_field", [True, False])
def test_other_parts_are_refused_in_training_too(train_field):
    without, plain = (
        SceneTriplane(TriplaneDecoder(8, 8), 8, 8),
        ViewPrior((32,), attention=(False,), input_attention=False),
    )
    examples = [(without, prior(), r"model.encoder \(SceneTriplane\) gives none: choose FeatureVolume")]
    examples += [(without, None, examples[0][2])] if train_field else []
    examples += [(encoder(), plain, r"model.prior \(ViewPrior\) wants colors: choose FeaturePrior")]
    for made, other, words in examples:
        model = GeNVS(made, RenderOptions(4), rays_per_view=16, prior=other, train_field=train_field)
        with pytest.raises(UserError, match=words):
            model.field(context())
        with pytest.raises(UserError, match=words):
            model.losses(Example(context(), context(1)), generator())
