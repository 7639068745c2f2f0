"""SLURM's variables against the Trainer's: what is taken over, and what is refused in one line before anything can wait
for ever.
"""

import os
import subprocess
from pathlib import Path

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from pages import ROOT
from training import CONFIG, refusal, vcgen
from vcgen.errors import UserError
from vcgen.training.slurm import Layout, slurm_layout

#: What srun gives a task of a batch job with two nodes and four tasks on each.
STEP = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "vcgen",
    "SLURM_STEP_ID": "0",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_GPUS_ON_NODE": "4",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}
#: The same of a job with one task and one GPU.
ONE = STEP | {
    "SLURM_NNODES": "1",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_GPUS_ON_NODE": "1",
    "CUDA_VISIBLE_DEVICES": "0",
}


def without(environ: dict, *names: str) -> dict:
    return {name: value for name, value in environ.items() if name not in names}


@pytest.mark.parametrize(
    ("environ", "layout"),
    [
        ({}, None),
        (STEP, Layout(2, 4)),
        (ONE, Layout(1, 1)),
        (without(ONE, "SLURM_NTASKS_PER_NODE"), Layout(1, 1)),
        (without(STEP, "SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"), Layout(2, 4)),  # no GPU asked for: CPUs
        (without(ONE, "SLURM_STEP_ID"), None),  # not started by srun, and nobody else to wait for
        (ONE | {"SLURM_JOB_NAME": "interactive"}, None),
        (STEP | {"TORCHELASTIC_RUN_ID": "1"}, None),  # torchrun has its own counts
    ],
)
def test_processes_are_those_that_slurm_started(environ, layout):
    assert slurm_layout(environ) == layout


@pytest.mark.parametrize(
    "given",
    [
        {"devices": 4},
        {"devices": "4"},
        {"devices": [0, 1, 2, 3]},
        {"devices": "0,1,2,3"},
        {"devices": -1},
        {"num_nodes": 2},
    ],
)
def test_a_trainer_that_agrees_is_accepted(given):
    assert slurm_layout(STEP, **given) == Layout(2, 4)


@pytest.mark.parametrize(
    ("environ", "given", "line"),
    [
        (without(STEP, "SLURM_STEP_ID"), {}, "8 tasks on 2 nodes, but this process was not started by srun"),
        (
            without(ONE | {"SLURM_NNODES": "2"}, "SLURM_STEP_ID"),
            {},
            "1 tasks on 2 nodes, but this process was not started by srun",
        ),
        (STEP | {"SLURM_JOB_NAME": "bash"}, {}, "8 tasks and the name 'bash'"),
        (STEP | {"SLURM_JOB_NAME": "interactive"}, {}, "--job-name=train"),
        (without(STEP, "SLURM_NTASKS_PER_NODE"), {}, "give sbatch --ntasks-per-node instead of --ntasks"),
        (STEP | {"SLURM_NTASKS": "6"}, {}, "started 6 tasks on 2 nodes, but --ntasks-per-node is 4"),
        (
            STEP,
            {"devices": 2},
            "trainer.devices is 2, but SLURM job 12 has 4 tasks per node; leave trainer.devices at auto",
        ),
        (STEP, {"devices": "0,1"}, "trainer.devices is 2"),
        (STEP, {"num_nodes": 4}, "trainer.num_nodes is 4, but SLURM job 12 has 2 nodes"),
        (
            STEP | {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"},
            {},
            "4 tasks per node for 2 GPUs; give sbatch --ntasks-per-node=2",
        ),
        (
            STEP | {"CUDA_VISIBLE_DEVICES": "0"},
            {},
            "sees 1 GPUs only; give sbatch --gpus-per-node=4 without --gpus-per-task",
        ),
        (without(STEP, "CUDA_VISIBLE_DEVICES") | {"SLURM_GPUS_ON_NODE": "8"}, {}, "8 GPUs per node, but 4 tasks"),
    ],
)
def test_disagreements_are_refused_in_one_line_with_the_remedy(environ, given, line):
    with pytest.raises(UserError) as error:
        slurm_layout(environ, **given)
    assert line in str(error.value) and "\n" not in str(error.value) and ";" in str(error.value)


def test_gpus_matter_only_where_the_trainer_may_use_them_and_idle_ones_can_be_meant():
    few = STEP | {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert slurm_layout(few, accelerator="cpu") == Layout(2, 4)
    many = ONE | {"SLURM_GPUS_ON_NODE": "8", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}
    assert slurm_layout(many, devices=1) == Layout(1, 1)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The tiny configuration as a file; no variable of SLURM from outside."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.parametrize(
    ("environ", "expected"), [(ONE, SLURMEnvironment), (without(ONE, "SLURM_STEP_ID"), LightningEnvironment)]
)
def test_lightning_gets_the_environment_and_never_requeues_by_itself(config, tmp_path, monkeypatch, environ, expected):
    found = {}

    def look(trainer, *args, **options):
        found["environment"], found["processes"] = (
            trainer.strategy.cluster_environment,
            (trainer.num_nodes, trainer.num_devices),
        )

    monkeypatch.setattr("lightning.pytorch.Trainer._fit_impl", look)
    for name, value in (environ | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}).items():
        monkeypatch.setenv(name, value)
    # With the strategy by name, Lightning asks the environment even for one process.
    assert vcgen("fit", config, tmp_path / "run", trainer__strategy="ddp", trainer__devices=1) == 0
    assert type(found["environment"]) is expected and found["processes"] == (1, 1)
    assert not getattr(found["environment"], "auto_requeue", False)


def test_a_disagreement_ends_the_command_before_anything_is_written(config, tmp_path, monkeypatch, capsys):
    for name, value in without(STEP, "SLURM_STEP_ID").items():
        monkeypatch.setenv(name, value)
    assert "not started by srun" in refusal(capsys, vcgen("fit", config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def submitted(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What fit.sbatch does in a folder; srun prints what it is to start."""
    (folder / "srun").write_text("#!/bin/sh\necho $@\n")
    (folder / "srun").chmod(0o755)
    environ = os.environ | without(ONE, "SLURM_STEP_ID") | {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": "home"}
    command = ["bash", ROOT / "slurm" / "fit.sbatch", "c.yaml", *words]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [["--ckpt_path", "a.ckpt"], ["--ckpt_path=a.ckpt", "--data.seed=1"]])
def test_the_script_refuses_a_checkpoint_that_it_would_leave_out(tmp_path, words):
    done = submitted(tmp_path, *words)
    assert done.returncode == 2 and "copy a.ckpt to FOLDER/checkpoints/last.ckpt" in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "log"),
    [
        ([], "outputs/vcgen-12.log"),
        (["--ckpt_path", "last"], "outputs/vcgen-12.log"),
        (["--trainer.default_root_dir", "new/run/"], "new/run.log"),
        (["--trainer.default_root_dir=~/run"], "home/run.log"),
    ],
)
def test_the_scripts_log_stands_beside_the_folder(tmp_path, words, log):
    assert submitted(tmp_path, *words).returncode == 0
    assert (tmp_path / log).read_text().endswith("--ckpt_path last\n")
