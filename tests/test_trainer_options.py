"""Options of Lightning's Trainer that cannot work are refused before anything is built, by their names; its switches
switch vcgen's parts.
"""

import math
from types import SimpleNamespace

import pytest

from training import refusal, vcgen
from vcgen.errors import UserError
from vcgen.training.callbacks.checkpoints import never_due
from vcgen.training.trainer_options import check_seed, check_trainer

#: What the parser gives for what a configuration leaves out.
DEFAULTS = {
    "check_val_every_n_epoch": 1,
    "overfit_batches": 0.0,
    "strategy": "auto",
    "devices": "auto",
    "accelerator": "auto",
    "max_steps": -1,
}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(max_steps=-5), "trainer.max_steps must be at least 1, or -1 for no limit; not -5"),
        (dict(max_steps=0), "trainer.max_steps"),
        (dict(max_steps=3, min_steps=5), "trainer.min_steps 5 is more than trainer.max_steps 3"),
        (dict(strategy="single_device", num_nodes=2), "trainer.strategy single_device knows no others of 2 nodes"),
        (dict(max_time="00:00:00"), "trainer.max_time must be DAYS:HOURS:MINUTES:SECONDS"),
        (dict(accumulate_grad_batches=0), "trainer.accumulate_grad_batches must be at least 1; not 0"),
        (dict(log_every_n_steps=0), "trainer.log_every_n_steps"),
        (dict(check_val_every_n_epoch=0), "trainer.check_val_every_n_epoch"),
        (dict(val_check_interval=0), "trainer.val_check_interval"),
        (
            dict(val_check_interval=0.5),
            "trainer.val_check_interval must be a whole number of batches: the data has no end; not 0.5",
        ),
        (
            dict(val_check_interval=1.0, check_val_every_n_epoch=None),
            "trainer.val_check_interval must be a whole number",
        ),
        (
            dict(val_check_interval=9, limit_train_batches=3),
            "trainer.val_check_interval 9 is more than the 3 batches of an epoch",
        ),
        (dict(num_sanity_val_steps=-2), "trainer.num_sanity_val_steps"),
        (dict(limit_train_batches=0), "trainer.limit_train_batches must be a number of batches, at least 1; not 0"),
        (
            dict(limit_train_batches=0.5),
            "trainer.limit_train_batches must be a whole number of batches: the data has no end; not 0.5",
        ),
        (dict(overfit_batches=0.1), "trainer.overfit_batches must be a whole number of batches"),
        (dict(limit_val_batches=1.5), "trainer.limit_val_batches"),
        (
            dict(max_epochs=3),
            "trainer.max_epochs counts nothing: the data has no end; give trainer.max_steps or max_time, or",
        ),
        (dict(min_epochs=1), "trainer.min_epochs counts nothing: the data has no end"),
        (dict(fast_dev_run=-1), "trainer.fast_dev_run"),
        (dict(gradient_clip_val=-1), "trainer.gradient_clip_val must be at least 0; not -1"),
        (dict(gradient_clip_val=float("nan")), "trainer.gradient_clip_val"),
        (dict(gradient_clip_algorithm="mean"), "trainer.gradient_clip_algorithm must be norm or value"),
        (dict(num_nodes=0), "trainer.num_nodes"),
        *[(dict(devices=devices), "trainer.devices must be at least 1, auto") for devices in (0, "0", -2, "-2", [])],
        (dict(use_distributed_sampler=True), "trainer.use_distributed_sampler must be false"),
        *[(dict(accelerator=name), "trainer.accelerator must be auto or cpu") for name in ("tpu", "hpu", "foo")],
        *[
            (dict(precision=name), "trainer.precision must be 32-true, bf16-mixed or 16-mixed")
            for name in ("64-true", "64", 64, "bf16-true", "16-true")
        ],
        (
            dict(plugins=[{"class_path": "lightning.pytorch.plugins.DoublePrecision"}]),
            "trainer.plugins: vcgen cannot train with DoublePrecision",
        ),
        *[
            (dict(strategy=name), f"trainer.strategy: vcgen cannot train with {name}; give --trainer.strategy ddp")
            for name in (
                "ddp_spawn",
                "ddp_fork",
                "ddp_notebook",
                "fsdp",
                "deepspeed_stage_2",
                "xla",
                "hpu_parallel",
                "FSDPStrategy",
            )
        ],
        (
            dict(strategy={"class_path": "lightning.pytorch.strategies.DeepSpeedStrategy"}),
            "cannot train with DeepSpeedStrategy",
        ),
        (
            dict(
                strategy={
                    "class_path": "lightning.pytorch.strategies.DDPStrategy",
                    "init_args": {"start_method": "spawn"},
                }
            ),
            "cannot train with DDPStrategy with start_method spawn",
        ),
        (dict(barebones=True, logger={"class_path": "CSVLogger"}), "trainer.barebones logs nothing"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(options, words):
    with pytest.raises(UserError) as error:
        check_trainer(DEFAULTS | options, endless=True)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(max_steps=1),
        dict(max_time="00:00:09:30"),
        dict(val_check_interval=250, check_val_every_n_epoch=None),
        dict(val_check_interval="00:01:00:00"),
        dict(max_epochs=3, limit_train_batches=10),
        dict(val_check_interval=0.5, limit_train_batches=10),
        dict(val_check_interval=9, limit_train_batches=3, check_val_every_n_epoch=None),
        dict(overfit_batches=2, max_epochs=3),
        dict(limit_val_batches=0.5),
        dict(limit_val_batches=0),
        dict(num_sanity_val_steps=-1),
        dict(fast_dev_run=True),
        dict(devices=[0, 1]),
        dict(devices=-1),
        dict(devices="0,1"),
        dict(devices="2"),
        dict(precision="bf16-mixed"),
        dict(precision=32),
        dict(strategy="ddp", num_nodes=2),
        dict(strategy={"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"static_graph": True}}),
        dict(strategy={"class_path": "mine.Strategy"}),
        dict(accelerator="gpu", strategy="sharded"),
        dict(gradient_clip_val=1),
    ],
)
def test_what_works_is_accepted(options):
    check_trainer(DEFAULTS | options, endless=True)


def test_epochs_and_fractions_are_for_data_that_has_an_end():
    check_trainer(DEFAULTS | dict(max_epochs=3, limit_train_batches=0.5, val_check_interval=0.25), endless=False)


@pytest.mark.parametrize(
    ("seed", "accepted"), [(0, True), (True, True), (None, True), (2**32 - 1, True), (-1, False), (2**32, False)]
)
def test_seeds_are_those_that_numpy_takes(seed, accepted):
    try:
        check_seed(seed)
    except UserError as error:
        assert not accepted and "seed_everything must lie in [0, 4294967295]" in str(error)
    else:
        assert accepted


def test_the_command_refuses_before_anything_is_written(config, tmp_path, capsys):
    assert "trainer.precision must be" in refusal(
        capsys, vcgen("fit", config, tmp_path / "run", trainer__precision="64-true")
    )
    assert not (tmp_path / "run").exists()


# --- switches ---


def callbacks_of(config, folder, monkeypatch, **options) -> set[str]:
    """The names of the trainer's callbacks and loggers."""
    found = set()
    monkeypatch.setattr(
        "lightning.pytorch.Trainer._fit_impl",
        lambda trainer, *given, **named: found.update(type(x).__name__ for x in (*trainer.callbacks, *trainer.loggers)),
    )
    assert vcgen("fit", config, folder, **options) == 0
    return found


PARTS = {"Progress", "Checkpoints", "LearningRateMonitor", "Speed", "Samples", "TensorBoardLogger", "RichModelSummary"}


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ({}, set()),
        (dict(trainer__enable_progress_bar="false"), {"Progress"}),
        (dict(trainer__callbacks="TQDMProgressBar"), {"Progress"}),
        (dict(trainer__enable_checkpointing="false"), {"Checkpoints"}),
        (dict(trainer__enable_model_summary="false"), {"RichModelSummary"}),
        (dict(trainer__logger="false"), {"LearningRateMonitor", "TensorBoardLogger"}),
        (dict(trainer__barebones="true"), PARTS),
    ],
)
def test_what_the_trainer_switches_off_is_left_out(config, tmp_path, monkeypatch, options, without):
    found = callbacks_of(config, tmp_path / "run", monkeypatch, **options)
    assert found & PARTS == PARTS - without
    assert {"Together", "Cursor", "EMA", "Requeue", "Provenance", "ConfigOfRun"} <= found


def test_without_checkpoints_and_bar_a_training_runs_and_leaves_none(config, tmp_path, capsys):
    options = dict(trainer__enable_checkpointing="false", trainer__enable_progress_bar="false", trainer__max_steps=2)
    assert vcgen("fit", config, tmp_path / "run", **options) == 0
    assert not list(tmp_path.rglob("*.ckpt")) and "it/s" not in capsys.readouterr().out


def test_a_trial_of_the_code_leaves_nothing_in_the_runs_folder(config, tmp_path):
    assert vcgen("fit", config, tmp_path / "run", trainer__fast_dev_run="true") == 0
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.lock"]


@pytest.mark.parametrize(
    ("interval", "batches", "steps", "words"),
    [
        (5, math.inf, 2, "trainer.val_check_interval is 5 batches, the run has 4"),
        (math.inf, math.inf, -1, "not a number of batches, and the data has no end"),
        (math.inf, 5, 2, "is 5 batches, the run has 4"),
        (4, math.inf, 2, None),
        (100, math.inf, -1, None),
        (math.inf, 4, 2, None),
        (None, math.inf, 2, None),
    ],
)
def test_a_run_that_will_not_be_validated_is_warned_of(interval, batches, steps, words):
    trainer = SimpleNamespace(
        val_check_batch=interval,
        num_training_batches=batches,
        max_steps=steps,
        accumulate_grad_batches=2,
        fast_dev_run=0,
    )
    assert never_due(trainer) is None if words is None else words in never_due(trainer)


# --- validation ---


def test_random_weights_and_missing_scenes_are_not_validated(config, finished, tmp_path, capsys):
    line = refusal(capsys, vcgen("validate", config, tmp_path / "run"))
    assert "the weights are random; give --ckpt_path best, last or a file, or --model.pretrained FOLDER" in line
    options = dict(ckpt_path=finished / "checkpoints" / "best.ckpt", data__val="null")
    assert "nothing to validate on: give data.val, or data.hold_out" in refusal(
        capsys, vcgen("validate", config, tmp_path / "run", **options)
    )
