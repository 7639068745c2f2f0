"""What Lightning users write in configurations is understood, and what Lightning refuses is one line."""

import errno

import pytest
import yaml
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping

from training import refusal, vcgen
from vcgen.training.refusals import explain, lightning_refusal, parse_refusal


def shown(capsys, config, folder, **options) -> dict:
    """The configuration as it is merged."""
    with pytest.raises(SystemExit):
        vcgen("fit", config, folder, **options, print_config="")
    return yaml.safe_load(capsys.readouterr().out)


def test_null_can_be_given_for_options_of_objects_at_any_depth(capsys, config, tmp_path):
    options = dict(model__optimizer__muon_lr=0.01, model__prior="ViewPrior", model__prior__sigma_data=0.5)
    found = shown(capsys, config, tmp_path, **options)["model"]["init_args"]
    assert (found["optimizer"]["muon_lr"], found["prior"]["init_args"]["sigma_data"]) == (0.01, 0.5)
    options |= dict(model__optimizer__muon_lr="null", model__prior__sigma_data="null")
    found = shown(capsys, config, tmp_path, **options)["model"]["init_args"]
    assert found["optimizer"]["muon_lr"] is None and found["prior"]["init_args"]["sigma_data"] is None


def test_a_callback_whose_default_is_a_member_of_an_enumeration_can_be_stored(capsys, config, tmp_path):
    found = shown(capsys, config, tmp_path, trainer__callbacks="Timer", trainer__callbacks__duration="00:01:00:00")
    assert found["trainer"]["callbacks"][0]["init_args"]["interval"] == "step"


def test_a_callback_that_lightning_refuses_ends_the_run_in_one_line(config, tmp_path, capsys):
    options = dict(trainer__callbacks="EarlyStopping", trainer__callbacks__monitor="nope")
    assert "Early stopping conditioned on metric `nope` which is not available" in refusal(
        capsys, vcgen("fit", config, tmp_path, **options)
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "run/a"), "choose a writable trainer.default_root_dir"),
        (OSError(errno.ENOSPC, "No space left on device"), "choose a writable trainer.default_root_dir"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "forgotten.json"), None),
        (OSError(errno.EMFILE, "Too many open files", "shard.tar"), "raise the limit by `ulimit -n`"),
        (RuntimeError("Too many open files. Communication with the workers is ..."), "raise the limit by `ulimit -n`"),
    ],
)
def test_the_system_s_refusals_get_the_advice_that_helps(error, words):
    """A file that the program forgot is no matter of the run's folder: it keeps its traceback."""
    line = explain(error)
    assert line is None if words is None else words in line and "\n" not in line


def test_what_lightning_raises_of_its_own_accord_is_a_refusal_and_nothing_else():
    with pytest.raises(MisconfigurationException) as refused:
        EarlyStopping("val/psnr", mode="upwards")
    assert lightning_refusal(refused.value).startswith("`mode` can be")
    with pytest.raises(AttributeError) as mistake:
        EarlyStopping("val/psnr").on_validation_end(None, None)
    assert lightning_refusal(mistake.value) is None
    assert lightning_refusal(ValueError("never raised")) is None


@pytest.mark.parametrize(
    ("errors", "line"),
    [
        (
            ["Expected a dot import path string: nope", "Expected a <class 'bool'>"],
            "a.b: no class is called nope here; give its name, or package.module.Class",
        ),
        (
            ["Expected a <class 'int'>", "Expected a <class 'float'>", "Expected a <class 'NoneType'>"],
            "a.b: expected int or float. Got value: x",
        ),
        (["Expected a typing.Literal['one', 'two']. Got value: x"], "a.b: expected one of 'one', 'two'. Got value: x"),
        (
            [
                "Problem with given class_path 'm.Log':\n        No module named 'm'",
                "Not a valid subclass of Logger\n      Subclass types expect one of:\n      - a class path (str)",
                "Expected a <class 'collections.abc.Iterable'>",
            ],
            "a.b: Log: No module named 'm'",
        ),
        (["logger=<a.b.Log object at 0x7f38cfa49fd0> was passed"], "a.b: logger=a.b.Log was passed"),
    ],
)
def test_of_several_things_that_do_not_fit_the_telling_one_is_said(errors, line):
    listed = "".join(f"    - {error}\n" for error in errors)
    message = (
        f'Parser key "a.b":\n  Does not validate against any of the Union subtypes\n  Errors:\n{listed}  Given value'
        " type: <class 'str'>\n  Given value: x"
    )
    assert parse_refusal(message) == line


def test_a_list_of_paths_is_stored_as_one(capsys, config, tmp_path):
    """A run's config.yaml starts the same run again; it held a list as a text where one path is allowed, too."""
    families = ["a.json", "b.json"]
    found = shown(capsys, config, tmp_path, data__families=str(families))
    assert found["data"]["init_args"]["families"] == families
    (tmp_path / "stored.yaml").write_text(yaml.safe_dump(found))
    assert shown(capsys, tmp_path / "stored.yaml", tmp_path) == found
    found = shown(capsys, config, tmp_path, data__families="a.json")
    assert found["data"]["init_args"]["families"] == "a.json"
