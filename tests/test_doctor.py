"""The doctor: each check on computers that lack something, and the command on this one."""

import builtins
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from vcgen.cli import main as cli
from vcgen.cli.doctor import cluster, command, computer, files, packages
from vcgen.cli.doctor.finding import Finding, attempt
from vcgen.data.shards.files import read_index, write_shards

CARS = Path(__file__).parents[1] / "data" / "cars64" / "test"
JOB = {
    "SLURM_JOB_ID": "12",
    "SLURM_JOB_NAME": "vcgen",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "4",
    "SLURM_NTASKS_PER_NODE": "2",
}
JOB |= {"SLURM_NODELIST": "gpu[07-08]"}


def states(findings) -> list[str]:
    return [finding.state for finding in findings]


def installed(**versions: str | None):
    """Stands in for ``metadata.version`` with other versions; None is a package that is missing."""

    def version(name: str) -> str:
        found = versions.get(name.replace("-", "_"), metadata.version(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    return version


def test_the_command_prints_a_line_per_check_and_nothing_of_the_environment(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET_TOKEN", "not for logs")
    # 1 where this computer has a problem, such as little space
    assert cli.main(["doctor", "--data", str(CARS)]) in (0, 1)
    out = capsys.readouterr().out
    assert all(line.split()[0] in ("ok", "warning", "problem") for line in out.splitlines())
    subjects = {line.split()[1] for line in out.splitlines()}
    assert subjects == {
        "python",
        "packages",
        "imports",
        "processors",
        "gpus",
        "space",
        "lpips",
        "bundled",
        "slurm",
        "launch",
        "data",
    }
    assert "15 objects of 64 x 64 px" in out and "not for logs" not in out


@pytest.mark.parametrize(("states", "status"), [(["ok", "warning"], 0), (["ok", "problem", "ok"], 1)])
def test_the_status_is_1_if_there_is_a_problem(monkeypatch, states, status):
    monkeypatch.setattr(command, "report", lambda data: [Finding(state, "x", "y") for state in states])
    assert command.main([]) == status


def test_a_missing_package_is_a_line_and_does_not_end_the_report(monkeypatch):
    real = builtins.__import__

    def without_torch(name, *args, **kwargs):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    (found,) = attempt("processors", computer.processors)
    assert found.state == "problem" and "No module named 'torch'" in found.text
    assert [f.state for f in attempt("space", computer.space)] != []


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
@pytest.mark.parametrize("name", ["lightning", "pytorch_lightning"])
def test_malicious_releases_are_refused_by_name_and_never_imported(monkeypatch, name, version):
    (found,) = packages.malicious(installed(**{name: version}))
    assert (
        found.state == "problem" and found.subject == name.replace("_", "-") and f"{version} is malicious" in found.text
    )
    assert "lightning>=2.6.6" in found.text
    monkeypatch.setattr(packages, "malicious", lambda: [found])
    monkeypatch.setattr(packages, "imports", lambda: pytest.fail("imported"))
    assert command.report() == [found]


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        ({"lightning": "2.6.1"}, "lightning 2.6.1 is not <2.7,>=2.6.6; pip install 'lightning<2.7,>=2.6.6'"),
        ({"jsonargparse": "5.0.0"}, "jsonargparse 5.0.0 is not"),
        ({"nerfacc": None}, "nerfacc is missing; pip install 'nerfacc==0.5.3'"),
    ],
)
def test_versions_are_compared_with_what_vcgen_needs(versions, text):
    found = list(packages.packages(installed(**versions)))
    assert states(found) == ["problem", "ok"] and text in found[0].text
    assert states(packages.malicious(installed())) == [] and states(packages.packages()) == ["ok"]


def test_a_package_that_breaks_on_import_is_named(monkeypatch, tmp_path):
    (tmp_path / "broken_vision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist\\nmore')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = packages.imports(("json", "broken_vision"))
    assert (
        found.state == "problem"
        and "broken_vision cannot be imported (operator torchvision::nms does not exist)" in found.text
    )


@pytest.mark.parametrize(
    ("file", "content", "cores"),
    [
        ("cpu.max", "150000 100000\n", 1.5),
        ("cpu.max", "max 100000\n", None),
        ("cpu/cpu.cfs_quota_us", "200000\n", 2),
        ("cpu/cpu.cfs_quota_us", "-1\n", None),
    ],
)
def test_control_groups_of_both_versions_are_read(tmp_path, file, content, cores):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / file).write_text(content)
    assert computer.cgroup_cores(tmp_path) == cores


def test_more_threads_than_cores_are_a_warning(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    (found,) = computer.processors(tmp_path)
    assert found.state == "warning" and "export OMP_NUM_THREADS=1" in found.text


def test_little_space_is_a_warning_and_none_a_problem(tmp_path, monkeypatch):
    for free, state in ((10**12, "ok"), (5 * 10**9, "warning"), (10**8, "problem")):
        monkeypatch.setattr(computer.shutil, "disk_usage", lambda folder, free=free: type("usage", (), {"free": free}))
        assert states(computer.space(tmp_path)) == [state]


def test_missing_lpips_weights_are_a_warning_that_says_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (found,) = files.lpips()
    assert found.state == "warning" and f"vgg16-397923af.pth (or vgg16_features.pth) into {tmp_path}" in found.text
    (tmp_path / "vgg16_features.pth").write_bytes(b"any")
    assert [(f.state, "vgg (" in f.text) for f in files.lpips()] == [("ok", True)]
    (tmp_path / "vgg16-397923af.pth").write_bytes(b"damaged")
    assert states(files.lpips()) == ["problem"]


def test_damaged_data_is_a_problem(tmp_path):
    write_shards([read_index(CARS).read(0)], tmp_path / "data", (64, 64))
    assert states(attempt("data", lambda: files.shards(tmp_path / "data"))) == ["ok"]
    (shard,) = (tmp_path / "data").glob("*.tar")
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    (found,) = attempt("data", lambda: files.shards(tmp_path / "data"))
    assert found.state == "problem" and "checksum differs" in found.text
    assert states(files.bundled(tmp_path)) == ["ok"]  # no repository: nothing to check


@pytest.fixture
def slurm_commands(monkeypatch):
    """SLURM's commands are there, and know the job."""
    monkeypatch.setattr(cluster.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(cluster, "job_state", lambda job: {"Requeue": "1", "BatchFlag": "1"})


@pytest.mark.parametrize(
    ("environ", "expected", "text"),
    [
        ({}, ["ok"], "not in a job"),
        (JOB, ["ok", "ok"], "job 12: 2 nodes x 2 tasks; trainings are started with srun"),
        (JOB | {"SLURM_STEP_ID": "0"}, ["ok", "ok"], "job 12 may be requeued"),
        (JOB | {"SLURM_NTASKS": "3"}, ["problem"], "started 3 tasks on 2 nodes, but --ntasks-per-node is 2"),
    ],
)
def test_the_counts_of_a_job_are_checked(slurm_commands, environ, expected, text):
    found = attempt("slurm", lambda: cluster.slurm(environ))
    assert states(found) == expected and text in " ".join(f.text for f in found)


def test_a_job_without_srun_is_a_problem(monkeypatch):
    monkeypatch.setattr(cluster.shutil, "which", lambda name: None if name == "srun" else name)
    (found,) = cluster.slurm(JOB)
    assert found.state == "problem" and "without srun" in found.text


@pytest.mark.parametrize(
    ("known", "text"),
    [
        ({}, "scontrol says nothing"),
        ({"BatchFlag": "0", "Requeue": "1"}, "interactive"),
        ({"BatchFlag": "1", "Requeue": "0"}, "give sbatch --requeue"),
    ],
)
def test_jobs_that_cannot_be_requeued_are_a_warning(known, text):
    found = cluster.requeueing("12", known)
    assert found.state == "warning" and text in found.text


def unknown(name: str) -> str:
    raise OSError("Name or service not known")


@pytest.mark.parametrize(
    ("environ", "resolve", "expected", "text"),
    [
        ({}, unknown, ["ok"], "on this computer"),
        (JOB, lambda name: "10.0.0.7", ["ok"], "meet at gpu07, port made of the job's number"),
        (JOB, unknown, ["problem"], "meet at gpu07, which is no known host; export MASTER_ADDR"),
        (JOB | {"MASTER_ADDR": "nowhere"}, unknown, ["problem"], "correct or unset MASTER_ADDR"),
        (
            JOB | {"MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "17000"},
            lambda name: name,
            ["ok"],
            "meet at 10.0.0.7, port 17000",
        ),
        ({"RANK": "0", "WORLD_SIZE": "2"}, unknown, ["warning", "ok"], "RANK, WORLD_SIZE are set"),
    ],
)
def test_the_meeting_place_is_known(environ, resolve, expected, text):
    found = list(cluster.meeting(environ, resolve))
    assert states(found) == expected and text in found[0].text


def test_the_doctor_runs_where_no_package_is_installed():
    words = [sys.executable, "-S", "-m", "vcgen", "doctor"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parents[1], timeout=60)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [
        line
        for line in done.stdout.splitlines()
        if line.startswith("problem  imports") and "torch cannot be imported" in line
    ]
