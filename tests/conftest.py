"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

#: The modules whose shapes are types. With CHECK_SHAPES in the environment (test_shapes.py), what they are given
#: and what they return is checked; the hook must come before the first of them is imported.
SHAPED = ["vcgen.cameras", "vcgen.rays", "vcgen.types", "vcgen.fields", "vcgen.rendering"]
if "CHECK_SHAPES" in os.environ:
    install_import_hook(SHAPED, "shape_checks.check")

from training import CONFIG, vcgen  # noqa: E402  # it imports them

#: Model folders of the tests may name the classes of tests/stand_in.py, in other processes, too.
os.environ["VCGEN_PLUGINS"] = "stand_in"
#: A refused run leaves its loader processes to the end of its own process; here the garbage collector ends them, in
#: whatever test it runs, and waits this many seconds for each (5 otherwise).
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2


@pytest.fixture(autouse=True)
def fixed_seed():
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of sample data sets that developers keep beside the checkout; tests that need it are skipped without
    it.
    """
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"needs the developers' sample data in {Path('..', 'shared', 'data')}, which is no part of the repository"
        )
    return folder


@pytest.fixture
def config(tmp_path) -> Path:
    """The tiny configuration as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a finished run of the tiny configuration, four steps; nobody may change it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(CONFIG)
    assert vcgen("fit", folder / "tiny.yaml", folder / "run") == 0
    return folder / "run"
