"""A free triplane, trained with the shipped configuration, reproduces unseen views of a real scene."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_one_scene_reaches_28_db_on_unseen_views(shared_data, tmp_path):
    command = [
        sys.executable,
        "benchmarks/one_scene.py",
        str(shared_data / "mic_256"),
        "--out",
        str(tmp_path),
        "--unfiled",
    ]
    output = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures = json.loads(output.splitlines()[-1])
    assert figures["views"] == 50
    assert figures["psnr"] >= 28
