"""A training of seconds, for the tests of the fit command: a tiny model on the bundled cars."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from vcgen.cli import main as cli
from vcgen.types import Example

#: What begins ``vcgen fit`` in a process of its own; a configuration follows.
FIT = (sys.executable, "-m", "vcgen", "fit", "-c")
CONFIG = """
seed_everything: 0
trainer:
  max_steps: 4
  accelerator: cpu
  val_check_interval: 2
  check_val_every_n_epoch: null
  num_sanity_val_steps: 0
  log_every_n_steps: 1
data:
  class_path: ShardData
  init_args: {train: data/cars64/train, val: data/cars64/test, batch_size: 2, targets: 1, val_scenes: 2,
              val_targets: 1, num_workers: 0}
model:
  class_path: NerfDiff
  init_args:
    encoder:
      class_path: TriplaneEncoder
      init_args:
        decoder: {channels: 8, hidden: 8, depth: 1, aggregate: sum}
        plane_size: 16
        plane_channels: 8
        channels: [32, 32]
        layers: 1
        attention: [false, false]
        patch: 2
        distance: 1.3
        radius: 0.51
        half_size: 0.56
        projection: orthographic
    render: {samples: 4}
    render_eval: {samples: 4}
    rays_per_view: 16
    optimizer: {lr: 1.0e-3, warmup_steps: 1, schedule: constant}
    prior: null
samples: {scenes: 2, turntable: 0}
"""
#: For ``model.prior`` of that configuration, which has none.
PRIOR = {
    "class_path": "vcgen.diffusion.prior.ViewPrior",
    "init_args": {"channels": [16, 32], "attention": [False, True], "patch": 4},
}


class Witness(pl.Callback):
    """Notes the scenes of every batch that is trained on; asks the trainer to stop after ``stop`` steps of the whole
    training.
    """

    seen: list[tuple[str, ...]] = []

    def __init__(self, stop: int = 0):
        self.stop = stop

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch: Example, batch_idx: int
    ) -> None:
        Witness.seen.append(batch.keys)
        if self.stop and trainer.global_step == self.stop:
            trainer.should_stop = True


class Slow(pl.Callback):
    """Makes each step of a SLURM job's first start last some seconds longer."""

    def __init__(self, seconds: float):
        self.seconds = 0.0 if int(os.environ.get("SLURM_RESTART_COUNT", 0)) else seconds

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Example, batch_idx: int
    ) -> None:
        end = time.monotonic() + self.seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(left)


class Fault(pl.Callback):
    """Fails in the middle of the first validation."""

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        raise RuntimeError("a fault in validation")


class Ranks(pl.Callback):
    """Each process writes what it trained on, its noise, and its weights at the end."""

    def __init__(self, folder: str):
        self.folder, self.scenes, self.validated, self.noise = Path(folder), [], [], None

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Example, batch_idx: int
    ) -> None:
        self.scenes += batch.keys
        self.noise = torch.rand(8, generator=module.step_generator())

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        self.validated += batch.keys

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        found = {
            "weights": module.state_dict(),
            "noise": self.noise,
            "scenes": self.scenes,
            "validated": self.validated,
        }
        torch.save(found, self.folder / f"rank{trainer.global_rank}.pt")


class Scores(pl.Callback):
    """The first process writes what a validation came to."""

    def __init__(self, file: str):
        self.file = Path(file)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.file.write_text(json.dumps({name: float(value) for name, value in trainer.callback_metrics.items()}))


def vcgen(command: str, config: Path | str | list[Path], folder: Path, /, **options: Any) -> int:
    """Run ``vcgen COMMAND -c CONFIG`` in this process, with options such as ``trainer__max_steps=2``; returns the exit
    status. Of several configurations later ones win."""
    files = config if isinstance(config, list) else [config]
    words = [
        command,
        *(word for file in files for word in ("-c", str(file))),
        "--trainer.default_root_dir",
        str(folder),
    ]
    for name, value in options.items():
        words += ["--" + name.replace("__plus", "+").replace("__", "."), *([] if value == "" else [str(value)])]
    return cli.main(words)


def load(path: Path) -> dict[str, Any]:
    """A checkpoint, without unpickling anything."""
    return torch.load(path, weights_only=True)


def state_of_training(module: torch.nn.Module) -> dict[str, Any]:
    """What Lightning and the callbacks put into the checkpoint of a module after one step, by gradients of 1."""
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    best = {"monitor": "val/psnr", "mode": "max", "current_score": 20.5, "best": {1: 20.5}, "unvalidated": False}
    averages = {name: p.detach().clone() for name, p in module.named_parameters()}
    return {
        "state_dict": dict(module.state_dict()),
        "global_step": 1,
        "epoch": 0,
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0).state_dict()],
        "callbacks": {"EMA": {"weights": averages, "updates": 1}, "Checkpoints": best},
    }


def last_checkpoint(folder: Path) -> dict[str, Any]:
    """The last checkpoint of a run's folder."""
    return load(folder / "checkpoints" / "last.ckpt")


def equal(a, b) -> bool:
    """Bitwise equality of nested containers of tensors."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_end(*folders: Path) -> dict[str, Any]:
    """Two runs ended bitwise alike, in all that their last checkpoints hold but the clock and what Lightning counts.
    Returns the first one's.
    """
    a, b = map(last_checkpoint, folders)
    for part in ("global_step", "state_dict", "optimizer_states", "lr_schedulers"):
        assert equal(a[part], b[part]), part
    assert equal(a.get("ShardData"), b.get("ShardData"))
    assert equal(a["callbacks"]["EMA"], b["callbacks"]["EMA"])
    return a


def refusal(capsys, status: int) -> str:
    """The one line that a refused command leaves on stderr."""
    assert status == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line or "Traceback" in line]
    assert len(lines) == 1 and lines[0].startswith("vcgen: error: ")
    return lines[0]
