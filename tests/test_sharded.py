"""Sharded training (FSDP2) on CPU ranks: the numbers of DDP, really sharded weights, one checkpoint file, exact
resume.
"""

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch.distributed.tensor import DTensor

from ranks import vcgen_ranks
from training import CONFIG, PRIOR, equal, last_checkpoint, load
from vcgen.checkpoints import model_folder as folder
from vcgen.cli.export import main as export
from vcgen.data.datamodules.stream import FixedScenes
from vcgen.data.shards.files import read_index
from vcgen.optim.optimizer import clip_gradients, total_norm

SHARDED = dict(trainer__strategy="sharded", trainer__callbacks__plus="test_sharded.Parts")


@pytest.fixture
def config(tmp_path):
    """The tiny configuration with a prior, clipping and a gradient checkpoint, as a file."""
    content = yaml.safe_load(CONFIG)
    content["model"]["init_args"] |= {"prior": PRIOR, "prior_options": {"views": 1, "condition_size": 8}}
    content["trainer"] |= {"gradient_clip_val": 0.1, "max_steps": 2}
    content["samples"]["scenes"] = 1
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@torch.no_grad()
def see(module, example) -> torch.Tensor:
    """What a system makes of the target views, and two steps of what its prior draws there."""
    rendered = module.render(module.field(example.context), example.target.cameras, example.target.size).rgb
    drawn = module.sample(example.context, example.target.cameras, torch.Generator().manual_seed(0), steps=2)
    return torch.cat([rendered, drawn])


class Parts(pl.Callback):
    """Each rank writes how much of the weights, averages and optimizer state it keeps, and what it sees with the
    averages.
    """

    def __init__(self, path: str):
        self.path, self.images = path, {}

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.images[batch.keys[0]] = see(module, batch)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        sizes = {
            name: (p.to_local().numel(), p.numel()) for name, p in module.named_parameters() if isinstance(p, DTensor)
        }
        states = [s["exp_avg"] for s in trainer.optimizers[0].state.values() if isinstance(s["exp_avg"], DTensor)]
        ema = next(c for c in trainer.callbacks if type(c).__name__ == "EMA").weights
        kept = {"images": self.images, "sizes": sizes, "momenta": sum(s.to_local().numel() for s in states)}
        kept["averages"] = sum(w.to_local().numel() for w in ema.values() if isinstance(w, DTensor))
        torch.save(kept, f"{self.path}.{trainer.global_rank}")


@pytest.mark.slow
def test_sharded_training_equals_ddp_and_goes_on_exactly(config, tmp_path):
    assert vcgen_ranks(2, "fit", config, tmp_path / "ddp") == [0, 0]
    path = dict(trainer__callbacks__path=tmp_path / "parts")
    assert vcgen_ranks(2, "fit", config, tmp_path / "sharded", **SHARDED, **path) == [0, 0]
    ddp, sharded = (last_checkpoint(tmp_path / name) for name in ("ddp", "sharded"))
    for a, b in (
        (ddp["state_dict"], sharded["state_dict"]),
        (ddp["callbacks"]["EMA"]["weights"], sharded["callbacks"]["EMA"]["weights"]),
    ):
        assert a.keys() == b.keys()
        # Where a gradient is zero but for rounding, AdamW's steps are the learning rate, 1e-3, in a direction that
        # rounding chooses.
        close = [float(((a[name] - b[name]).abs() < 2e-5).float().mean()) for name in a]
        assert sum(close) / len(close) > 0.98
    kept = [load(f"{tmp_path / 'parts'}.{rank}") for rank in range(2)]
    total = sum(count for _, count in kept[0]["sizes"].values())
    assert total > 0.85 * sum(value.numel() for value in sharded["state_dict"].values())
    for name in ("averages", "momenta"):
        assert sum(rank[name] for rank in kept) == total
    for rank in kept:
        assert 0.4 < sum(mine for mine, _ in rank["sizes"].values()) / total < 0.6
    export(["--checkpoint", str(tmp_path / "sharded" / "checkpoints" / "last.ckpt"), "--out", str(tmp_path / "model")])
    alone, data = folder.load(tmp_path / "model").eval(), yaml.safe_load(config.read_text())["data"]["init_args"]
    scenes = FixedScenes(read_index(data["val"]), data["val_scenes"], data["val_targets"])
    seen = kept[0]["images"] | kept[1]["images"]
    assert len(seen) == len(scenes)
    for number in range(len(scenes)):
        torch.testing.assert_close(see(alone, scenes[number]), seen[scenes[number].keys[0]], rtol=0, atol=1e-4)
    assert vcgen_ranks(2, "fit", config, tmp_path / "half", **SHARDED, **path, trainer__max_steps=1) == [0, 0]
    assert vcgen_ranks(2, "fit", config, tmp_path / "half", **SHARDED, **path, ckpt_path="last") == [0, 0]
    resumed = last_checkpoint(tmp_path / "half")
    for name in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(resumed[name], sharded[name]), name
    assert equal(resumed["callbacks"]["EMA"], sharded["callbacks"]["EMA"])


BOTH_WAYS = pytest.mark.parametrize(("first", "second"), [("ddp", "sharded"), ("sharded", "ddp")])


@pytest.mark.slow
@BOTH_WAYS
def test_a_checkpoint_of_the_other_strategy_is_refused_and_kept(config, tmp_path, capfd, first, second):
    run = dict(data__val="null", trainer__max_steps=1)
    assert vcgen_ranks(2, "fit", config, tmp_path / "run", **run, trainer__strategy=first) == [0, 0]
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    capfd.readouterr()
    run = dict(data__val="null", ckpt_path="last")
    assert vcgen_ranks(2, "fit", config, tmp_path / "run", **run, trainer__strategy=second) == [2, 2]
    lines = [line for line in capfd.readouterr().err.splitlines() if "error" in line or "Traceback" in line]
    # one of each rank
    assert len(lines) == 2 and all("optimizer is of another trainer.strategy" in line for line in lines)
    assert last.read_bytes() == before


@pytest.mark.slow
@BOTH_WAYS
def test_where_all_that_is_trained_is_sharded_a_run_goes_on_with_the_other_strategy(config, tmp_path, first, second):
    """A frozen field and a prior that is a U-Net alone: there the two optimizers have the same form."""
    content = yaml.safe_load(config.read_text())
    content["model"]["init_args"]["prior"]["init_args"]["input_attention"] = False
    config.write_text(yaml.safe_dump(content))
    assert vcgen_ranks(1, "fit", config, tmp_path / "start", data__val="null", trainer__max_steps=1) == [0]
    export(["--checkpoint", str(tmp_path / "start" / "checkpoints" / "last.ckpt"), "--out", str(tmp_path / "model")])
    run = dict(data__val="null", model__pretrained=tmp_path / "model", model__train_field="false")
    assert vcgen_ranks(2, "fit", config, tmp_path / "whole", **run, trainer__strategy=first) == [0, 0]
    assert vcgen_ranks(2, "fit", config, tmp_path / "parts", **run, trainer__strategy=first, trainer__max_steps=1) == [
        0,
        0,
    ]
    assert vcgen_ranks(2, "fit", config, tmp_path / "parts", **run, trainer__strategy=second, ckpt_path="last") == [
        0,
        0,
    ]
    whole, parts = (last_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    assert whole["global_step"] == parts["global_step"] == 2
    for a, b in (
        (whole["state_dict"], parts["state_dict"]),
        (whole["callbacks"]["EMA"]["weights"], parts["callbacks"]["EMA"]["weights"]),
    ):
        close = [float(((a[name] - b[name]).abs() < 2e-5).float().mean()) for name in a]
        assert a.keys() == b.keys() and sum(close) / len(close) > 0.98


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(model__optimizer__muon_lr=0.01), "model.optimizer.muon_lr: Muon needs whole matrices"),
        (
            dict(model__encoder="SceneTriplane", model__encoder__decoder__channels=8, model__prior="null"),
            "no U-Net to shard; use ddp",
        ),
        (dict(trainer__gradient_clip_algorithm="value"), "clipped by norm only"),
    ],
)
def test_what_sharding_cannot_do_is_refused(config, tmp_path, capfd, options, words):
    assert vcgen_ranks(
        2, "fit", config, tmp_path / "run", trainer__strategy="sharded", data__val="null", **options
    ) == [2, 2]
    assert words in capfd.readouterr().err


def test_norms_and_clipping_of_plain_weights_are_those_of_pytorch():
    ours, theirs = ([torch.nn.Parameter(torch.arange(n) + 1.0) for n in (2, 3)] for _ in range(2))
    for p in (*ours, *theirs):
        p.grad = p.detach().clone()
    assert float(total_norm(p.grad for p in ours)) == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs, 0.5)))
    clip_gradients(ours, 0.5)
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(ours, theirs))


@pytest.mark.slow
def test_sharded_training_in_bfloat16_is_about_that_of_ddp_and_keeps_float32_weights(config, tmp_path):
    options = dict(trainer__precision="bf16-mixed", data__val="null")
    assert vcgen_ranks(2, "fit", config, tmp_path / "ddp", **options) == [0, 0]
    assert vcgen_ranks(2, "fit", config, tmp_path / "sharded", **options, trainer__strategy="sharded") == [0, 0]
    ddp, sharded = (last_checkpoint(tmp_path / name)["state_dict"] for name in ("ddp", "sharded"))
    assert {value.dtype for value in sharded.values()} == {torch.float32}
    # A fifth of AdamW's first step, 1e-3; the first steps have that size whatever the gradient's.
    close = [float(((ddp[name] - sharded[name]).abs() < 2e-4).float().mean()) for name in ddp]
    assert sum(close) / len(close) > 0.95
