"""The scripts of slurm/ on a real SLURM: a cluster of two nodes on this machine, started by tests/slurm/start."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from training import CONFIG, assert_same_end, load
from vcgen.cli import main as cli

ROOT = Path(__file__).parents[1]
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol")
PATHS = os.environ["PATH"] + ":/usr/sbin"
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=PATHS)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"needs {', '.join(MISSING)} (Debian: slurmctld slurmd slurm-client munge)"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: SLURM's daemons start jobs"),
]
#: Steps of the trainings: so many that one of them, made slow, lasts longer than a minute, the shortest time limit.
STEPS = 24


class Cluster:
    """Submits jobs from an empty folder of their own, and waits for what they do."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir()
        # The command that the scripts call is this checkout's.
        command = folder / "bin" / "vcgen"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vcgen "$@"\n')
        command.chmod(0o755)
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "MASTER_"))
        } | {
            "PATH": f"{folder / 'bin'}:{PATHS}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "SLURM_CONF": str(folder / "cluster" / "slurm.conf"),
            "MASTER_ADDR": "127.0.0.1",
        }

    def call(self, *words: object) -> str:
        """What a command prints; it runs at the top of the checkout, for the paths in configurations."""
        done = subprocess.run(
            [*map(str, words)], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def sbatch(self, *words: object) -> str:
        """Submit; returns the job's number. Its output goes to FOLDER/NUMBER.out (of a task: NUMBER_TASK.out)."""
        return self.call("sbatch", "--parsable", f"--output={self.folder}/%j.out", "--cpus-per-task=1", *words).strip()

    def train(self, name: str, *words: object, seconds: float = 0) -> str:
        """Submit the tiny training into FOLDER/NAME, its log beside it; each step is made ``seconds`` longer at the
        job's first start.
        """
        config = self.folder / "tiny.yaml"
        config.write_text(CONFIG)
        options = {
            "trainer.default_root_dir": self.folder / name,
            "trainer.max_steps": STEPS,
            "trainer.val_check_interval": 5,
            "data.num_workers": 1,
            "samples.scenes": 0,
            "trainer.callbacks+": "training.Slow",
            "trainer.callbacks.seconds": seconds,
        }
        overrides = [word for key, value in options.items() for word in (f"--{key}", value)]
        return self.sbatch(*words, ROOT / "slurm" / "fit.sbatch", config, *overrides)

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job: JobState, Restarts, ExitCode, ..."""
        return dict(re.findall(r"(\S+?)=(\S*)", self.call("scontrol", "show", "job", number)))

    def wait(self, what: str, log: Path, condition, seconds: float = 600) -> None:
        """Until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not yet: {what}\n{log.read_text() if log.exists() else 'no log'}"
            time.sleep(0.2)

    def finish(self, number: str, log: Path, seconds: float = 600) -> dict[str, str]:
        """Until a job has ended for good."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        self.wait(f"the end of job {number}", log, lambda: self.job(number)["JobState"] in over, seconds)
        return self.job(number)


@pytest.fixture(scope="module")
def cluster():
    """A running cluster, in a folder whose name is short: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="vcgen-slurm-"))
    started = subprocess.run([ROOT / "tests" / "slurm" / "start", folder / "cluster"], capture_output=True, text=True)
    try:
        assert started.returncode == 0, started.stderr
        yield Cluster(folder)
    finally:
        subprocess.run([ROOT / "tests" / "slurm" / "stop", folder / "cluster"], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def jobs(cluster):
    """The same training three times at once, on two nodes: {name: number}."""
    return {
        "whole": cluster.train("whole", "--nodes=2"),
        "preempted": cluster.train("preempted", "--nodes=2", seconds=2),
        # SLURM looks every 30 s which jobs have less than 30 s left to their signal: it comes between half a minute and
        # a minute.
        "limited": cluster.train("limited", "--nodes=2", "--time=1", "--signal=USR1@1", seconds=4),
    }


def last(cluster: Cluster, name: str) -> Path:
    return cluster.folder / name / "checkpoints" / "last.ckpt"


def assert_same_training(cluster: Cluster, name: str) -> None:
    assert assert_same_end(cluster.folder / "whole", cluster.folder / name)["global_step"] == STEPS
    assert sorted(path.name for path in last(cluster, name).parent.iterdir()) == ["best.ckpt", "last.ckpt"]


def said(log: Path) -> list[str]:
    """What vcgen itself says."""
    return [line for line in log.read_text().splitlines() if line.startswith("vcgen: ")]


def test_two_nodes_train_as_one(cluster, jobs):
    log = cluster.folder / "whole.log"
    job = cluster.finish(jobs["whole"], log)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "0"), log.read_text()
    assert "Starting with 2 processes" in log.read_text() and said(log) == []
    assert load(last(cluster, "whole"))["global_step"] == STEPS


def test_a_preempted_training_goes_on_to_the_same_end(cluster, jobs):
    log = cluster.folder / "preempted.log"
    cluster.wait("a validation", log, last(cluster, "preempted").exists)
    cluster.call("scontrol", "requeue", jobs["preempted"])
    job = cluster.finish(jobs["preempted"], log)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()
    (line,) = said(log)
    assert re.search(r"stopped by SIGTERM after step \d+, \S+/last.ckpt is complete; whether job \d+ runs again", line)
    assert_same_training(cluster, "preempted")


def test_a_training_near_its_time_limit_requeues_itself_and_goes_on_to_the_same_end(cluster, jobs):
    log = cluster.folder / "limited.log"
    job = cluster.finish(jobs["limited"], log)
    # On a slow machine the second start, too, can come near its limit.
    assert job["JobState"] == "COMPLETED" and int(job["Restarts"]) == len(said(log)) > 0, log.read_text()
    for line in said(log):
        assert re.search(r"stopped by SIGUSR1 after step \d+, \S+/last.ckpt is complete; job \d+ is requeued", line)
    assert_same_training(cluster, "limited")


def test_a_job_that_may_not_be_requeued_fails_with_its_checkpoint_saved(cluster, jobs):
    log = cluster.folder / "once.log"
    number = cluster.train("once", "--no-requeue", seconds=2)
    cluster.wait("a validation", log, last(cluster, "once").exists)
    cluster.call("scancel", "--signal=USR1", number)
    job = cluster.finish(number, log)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "138:0", "0"), log.read_text()
    (line,) = said(log)
    step = int(
        re.search(
            r"stopped by SIGUSR1 after step (\d+), \S+ is complete; warning: job \d+ could not be requeued \(", line
        )[1]
    )
    assert load(last(cluster, "once"))["global_step"] == step > 5


def test_a_cancelled_job_stays_cancelled_with_its_checkpoint_saved(cluster, jobs):
    log = cluster.folder / "canceled.log"
    number = cluster.train("canceled", seconds=2)
    cluster.wait("a validation", log, last(cluster, "canceled").exists)
    cluster.call("scancel", number)
    job = cluster.finish(number, log)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0")
    cluster.wait("the last line", log, lambda: said(log))
    step = int(re.search(r"stopped by SIGTERM after step (\d+)", said(log)[0])[1])
    assert load(last(cluster, "canceled"))["global_step"] == step > 5


def test_a_contradiction_between_srun_and_sbatch_ends_the_job_at_once(cluster):
    job = cluster.train("contradiction", "--nodes=2", "--ntasks-per-node=2", "--ntasks=3")
    log = cluster.folder / "contradiction.log"
    assert cluster.finish(job, log)["JobState"] == "FAILED"
    assert "started 3 tasks on 2 nodes, but --ntasks-per-node is 2; give srun and sbatch the same" in log.read_text()


# --- the array ---


def test_an_array_with_a_task_killed_and_run_again_measures_what_one_process_does(cluster, jobs, capsys):
    cluster.finish(jobs["whole"], cluster.folder / "whole.log")
    model = cluster.folder / "model"
    assert cli.main(["export", "--checkpoint", str(last(cluster, "whole")), "--out", str(model)]) == 0
    protocol = ROOT / "configs" / "protocols" / "cars64_view0_sparse.json"
    places = [model, ROOT / "data" / "cars64" / "test", protocol, cluster.folder / "array"]
    arguments = [ROOT / "slurm" / "distill_array.sbatch", *places, "--lpips", "none"]
    array = cluster.sbatch("--array=0-2", f"--output={cluster.folder}/%a.out", *arguments)
    log = cluster.folder / "1.out"
    cluster.wait("task 1", log, lambda: cluster.job(f"{array}_1")["JobState"] == "RUNNING")
    cluster.call("scancel", f"{array}_1")  # Python is still importing
    assert cluster.finish(f"{array}_1", log)["JobState"] == "CANCELLED"
    for task in (0, 2):
        assert cluster.finish(f"{array}_{task}", cluster.folder / f"{task}.out")["JobState"] == "COMPLETED"

    def evaluate(out: str, *words: str) -> int:
        named = [f"--{name}={place}" for name, place in zip(("model", "data", "protocol"), places, strict=False)]
        return cli.main(["evaluate", *named, "--out", str(cluster.folder / out), "--lpips", "none", *words])

    assert evaluate("array", "--merge") == 2
    assert (
        "5 of 15 objects are not scored yet" in (line := capsys.readouterr().err)
        and "run --shard 1/3, then --merge" in line
    )
    cluster.environment["SHARDS"] = "3"
    again = cluster.sbatch("--array=1", f"--output={cluster.folder}/%a.out", *arguments)
    assert cluster.finish(f"{again}_1", log)["JobState"] == "COMPLETED", log.read_text()
    assert evaluate("array", "--merge") == 0 and evaluate("one", "--shard", "0/1") == 0
    merged, one = (json.loads((cluster.folder / out / "results.json").read_bytes()) for out in ("array", "one"))
    assert merged.pop("run") and one.pop("run")
    assert merged == one and merged["counts"]["objects"] == 15
