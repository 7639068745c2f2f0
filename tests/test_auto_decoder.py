"""Auto-decoders: only the codes of a batch's scenes move, new scenes are optimized, and what has no code is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from coded import batch, cameras, context, light_fields, srn
from training import assert_same_end, vcgen
from vcgen.checkpoints import model_folder
from vcgen.cli.export import export_checkpoint
from vcgen.cli.main import main
from vcgen.data.datamodules.single import SceneData
from vcgen.encoders.auto_decoder import AutoDecoder
from vcgen.errors import UserError
from vcgen.optim.optimizer import OptimizerOptions, Rows, hold_other_rows
from vcgen.rendering.volume import RenderOptions, render_rays
from vcgen.systems.nerfdiff import NerfDiff
from vcgen.types import Views

ROOT = Path(__file__).parents[1]
KEYS = ["car1", "car2", "car3", "car4"]
both = pytest.mark.parametrize("decoder", [light_fields, srn])


def coded(decoder=light_fields, **options) -> AutoDecoder:
    made = AutoDecoder(decoder(), len(KEYS), **{"steps": 3, "rays": 32, "lr": 1e-2, **options})
    made.begin(KEYS)
    return made


def look(scene) -> torch.Tensor:
    with torch.no_grad():
        shot = scene.shoot(cameras([0.0]).reshape(1, 1).rays(8, 8).reshape(1, -1))
    return torch.cat([shot.rgb, shot.alpha[..., None]], -1)


@both
@pytest.mark.parametrize("muon_lr", [None, 0.01])
def test_only_the_rows_of_the_batch_move_also_by_their_momentum(decoder, muon_lr):
    system = NerfDiff(
        coded(decoder),
        rays_per_view=16,
        optimizer=OptimizerOptions(lr=0.1, weight_decay=0.1, warmup_steps=0, schedule="constant", muon_lr=muon_lr),
        loss_weights={"rgb": 1.0},
    )
    system._trainer = SimpleNamespace(max_steps=10, global_step=0)
    optimizer = system.configure_optimizers()["optimizer"]
    table = system.encoder.codes.weight
    for keys, rows in ((("car1", "car2"), [0, 1]), (("car4",), [3]), (("car2", "car4"), [1, 3])):
        before, state = table.detach().clone(), {k: v.clone() for k, v in optimizer.state.get(table, {}).items()}

        given = batch(*keys)

        def closure(given=given):  # as Lightning's: gradients come inside of the step
            optimizer.zero_grad()
            sum(system.losses(given, torch.Generator().manual_seed(0)).values()).backward()

        optimizer.step(closure)
        others = [row for row in range(4) if row not in rows]
        assert torch.equal(table[others], before[others])
        assert (table[rows] != before[rows]).all()
        for name in ("exp_avg", "exp_avg_sq"):
            if state:
                assert torch.equal(optimizer.state[table][name][others], state[name][others])
            assert (optimizer.state[table][name][rows] != 0).all()


def test_without_that_momentum_would_move_other_rows():
    for hold in (True, False):
        table = Rows(2, 3)
        optimizer = torch.optim.AdamW(table.parameters(), lr=0.1)
        if hold:
            hold_other_rows(optimizer, [table.weight])
        for row in (0, 1):
            before = table.weight[0].clone()
            optimizer.zero_grad()
            table(torch.tensor([row])).sum().backward()
            optimizer.step()
        assert torch.equal(table.weight[0], before) is hold


@both
def test_a_scene_is_that_of_its_key_wherever_it_stands_in_the_batch(decoder):
    made = coded(decoder, deviation=1.0)
    first, second = (made.known(batch(*keys)).code for keys in (("car3", "car1"), ("car1", "car3")))
    assert torch.equal(first, second.flip(0)) and torch.equal(first[0], made.codes.weight[2])


@both
def test_optimizing_from_the_true_code_stays_there(decoder):
    made = coded(decoder, steps=20, loss_weights={"latent": 0.0, "behind": 0.0}).double()
    true = torch.randn(1, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    camera = cameras([40.0]).reshape(1, 1).to(torch.float64)
    with torch.no_grad():
        shot = render_rays(made.scene(true), camera.rays(16, 16).reshape(1, -1), RenderOptions())
    straight = torch.cat([shot.rgb / shot.alpha[..., None].clamp(min=1e-9), shot.alpha[..., None]], -1)
    images = straight.unflatten(1, (16, 16)).movedim(-1, 1)[:, None]
    views = Views(images[:, :, :3], camera, images[:, :, 3:])
    torch.testing.assert_close(made.optimized(views, true), true, rtol=0, atol=1e-6)
    assert (made.optimized(views, true + 0.1) - true - 0.1).abs().max() > 1e-2


@both
def test_optimization_comes_nearer_repeats_bitwise_and_touches_no_weight(decoder):
    made = coded(decoder, steps=20)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    with torch.no_grad():
        first, again = made(context(1)), made(context(1))
    with torch.inference_mode():
        third = made(context(1))
    assert torch.equal(first.code, again.code) and torch.equal(first.code, third.code)
    assert torch.equal(look(first), look(third))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(p.grad is None for p in made.parameters())

    def error(scene) -> torch.Tensor:
        views = context(1)
        return (look_at(scene, views) - views.images).square().mean()

    assert error(first) < error(made.scene(torch.zeros(1, 8)))


@both
def test_what_a_new_scene_becomes_does_not_depend_on_others_beside_it(decoder):
    made, views = coded(decoder, steps=5), context(3)
    with torch.no_grad():
        together, alone = made(views).code, [made(views[number : number + 1]).code for number in range(3)]
    assert torch.equal(together, torch.cat(alone)) and not torch.equal(alone[0], alone[1])


def look_at(scene, views: Views) -> torch.Tensor:
    system = NerfDiff(coded(), RenderOptions())
    with torch.no_grad():
        return system.render(scene, views.cameras, views.size).rgb


def test_views_of_a_new_scene_are_optimized_together():
    made, views = coded(), context(1, views=2)
    with torch.no_grad():
        alone, together = made(views[:, :1]).code, made(views).code
    assert alone.shape == together.shape == (1, 8) and not torch.equal(alone, together)


def test_unknown_keys_are_refused():
    with pytest.raises(
        UserError, match=r"scene car9 has no code: AutoDecoder trains on the scenes of data.train alone"
    ):
        coded().known(batch("car1", "car9"))


def test_weights_of_other_losses_are_refused():
    words = "loss_weights has latnet, rgb; give those of latent in proportion to the error of color, which has 1"
    with pytest.raises(UserError, match=words):
        coded(loss_weights={"rgb": 200.0, "latnet": 1.0})
    assert coded(loss_weights={"latent": 1.0, "behind": 1.0}).loss_weights == {"latent": 1.0}


def test_one_scene_has_a_code_too():
    data = SceneData(ROOT / "data" / "cars64" / "test", 1, val_targets=2)
    data.setup("fit")
    made = AutoDecoder(light_fields(), 1)
    made.begin(data.keys)
    assert torch.equal(made.known(data.example).code, made.codes.weight)


def test_another_number_of_scenes_and_codes_of_other_scenes_are_refused():
    made = coded()
    with pytest.raises(UserError, match=r"model.encoder.scenes is 4, the training data has 2 scenes, .* set it to 2"):
        made.begin(KEYS[:2])
    made.begin(KEYS)  # as after a restart
    with pytest.raises(UserError, match=r"codes of other scenes than data.train gives, or in another order"):
        made.begin(KEYS[::-1])


def test_scenes_that_change_under_their_keys_and_backgrounds_that_it_does_not_know_are_refused():
    system = NerfDiff(coded())
    data = SimpleNamespace(augments=True, keys=KEYS, image_size=(16, 16), targets=1)
    system._trainer = SimpleNamespace(datamodule=data, ckpt_path=None)
    with pytest.raises(UserError, match=r"data.mirror and data.permute_colors make other scenes .* set both to false"):
        system.setup("fit")
    data.augments = False
    system.setup("fit")
    system.background = "learned"
    with pytest.raises(UserError, match=r"model.background is learned, .* over white: set it to white"):
        system.setup("fit")


@pytest.mark.integration
def test_a_stopped_run_goes_on_bitwise_and_what_it_exports_makes_new_scenes(tmp_path):
    cars = ROOT / "data" / "cars64" / "test"
    options = {
        "trainer__accelerator": "cpu",
        "trainer__max_steps": 3,
        "trainer__val_check_interval": 10,
        "data__train": cars,
        "data__val": "null",
        "data__context": 0,
        "data__batch_size": 4,
        "data__num_workers": 0,
        "model__encoder__scenes": 15,
        "model__encoder__steps": 2,
        "model__encoder__decoder__hidden": 16,
        "model__encoder__decoder__width": 16,
        "model__rays_per_view": 16,
        "samples__scenes": 0,
        "trainer__callbacks__plus": "training.Witness",
    }
    config = ROOT / "configs" / "srn.yaml"
    assert vcgen("fit", config, tmp_path / "whole", **options) == 0
    assert vcgen("fit", config, tmp_path / "parts", **options, trainer__callbacks__stop=2) == 0
    assert vcgen("fit", config, tmp_path / "parts", **options, ckpt_path="last") == 0
    assert assert_same_end(tmp_path / "whole", tmp_path / "parts")["global_step"] == 3
    folder = export_checkpoint(tmp_path / "parts" / "checkpoints" / "last.ckpt", tmp_path / "model")
    views = context(1)
    looks = []
    for _ in range(2):
        system = model_folder.load(folder)
        with torch.no_grad():
            looks.append(system.render(system.field(views), views.cameras, (16, 16)).rgb)
    assert torch.equal(*looks)
    protocol, out = ROOT / "configs" / "protocols" / "cars64_view0.json", tmp_path / "scores"
    words = f"--model {folder} --data {cars} --protocol {protocol} --out {out} --lpips [none] --shard 0/15 --device cpu"
    assert main(["evaluate", *words.split()]) == 0
    assert len(list((out / "records").glob("*.json"))) == 1
