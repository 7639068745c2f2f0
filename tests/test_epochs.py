"""Lightning's epochs, which ``trainer.limit_train_batches`` makes of an endless stream: each goes on where the last
ended, resumed or not.
"""

import itertools

import pytest

from training import Witness, equal, last_checkpoint, vcgen
from vcgen.data.datamodules.stream import SceneStream
from vcgen.data.shards.files import read_index
from vcgen.types import Position

STEPS = 6


@pytest.fixture(scope="module")
def order():
    """The scenes of the stream's batches, as they come without epochs."""
    stream = SceneStream(read_index("data/cars64/train"), 2, 1, seed=0)
    return [example.keys for example in itertools.islice(stream, 3 * STEPS)]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "stops", "batches"),
    [
        pytest.param(dict(limit_train_batches=2), [], STEPS, id="undisturbed"),
        pytest.param(dict(limit_train_batches=2), [1, 4], STEPS, id="stopped in the midst and at the end of an epoch"),
        pytest.param(
            dict(limit_train_batches=2, reload_dataloaders_every_n_epochs=1), [3], STEPS, id="loaders made anew"
        ),
        # epochs of five batches and three steps, of which the last has one batch
        pytest.param(
            dict(limit_train_batches=5, accumulate_grad_batches=2), [3, 4], 2 * 5, id="accumulating over the border"
        ),
    ],
)
def test_every_epoch_goes_on_where_the_last_ended(config, tmp_path, monkeypatch, order, options, stops, batches):
    monkeypatch.setattr(Witness, "seen", [])
    options = {f"trainer__{name}": value for name, value in (dict(max_steps=STEPS) | options).items()}
    options |= dict(data__val="null", data__num_workers=2 if stops else 0, trainer__callbacks__plus="training.Witness")
    for stop in stops:
        assert vcgen("fit", config, tmp_path / "run", **options | dict(trainer__max_steps=stop), ckpt_path="last") == 0
    assert vcgen("fit", config, tmp_path / "run", **options, ckpt_path="last") == 0
    assert Witness.seen == order[:batches]


@pytest.mark.integration
def test_a_run_that_is_counted_in_epochs_ends_with_a_checkpoint_of_its_last_step_and_goes_on(
    config, tmp_path, monkeypatch, order
):
    monkeypatch.setattr(Witness, "seen", [])
    options = dict(
        trainer__limit_train_batches=3, trainer__max_steps=-1, trainer__val_check_interval=100, ckpt_path="last"
    )
    for epochs in (1, 2):
        assert (
            vcgen(
                "fit",
                config,
                tmp_path / "run",
                **options,
                trainer__max_epochs=epochs,
                trainer__callbacks__plus="training.Witness",
            )
            == 0
        )
        assert last_checkpoint(tmp_path / "run")["global_step"] == 3 * epochs
    assert Witness.seen == order[:6]


@pytest.mark.integration
def test_learning_rates_fall_over_a_run_that_is_counted_in_epochs(config, tmp_path):
    """Two epochs of five batches, of which the last is a step of its own: six steps."""
    options = dict(data__val="null", data__num_workers=0, model__optimizer__schedule="cosine", trainer__max_steps=6)
    options |= dict(trainer__accumulate_grad_batches=2, trainer__limit_train_batches=5)
    assert vcgen("fit", config, tmp_path / "steps", **options) == 0
    epochs = options | dict(trainer__max_steps=-1, trainer__max_epochs=2)
    assert vcgen("fit", config, tmp_path / "epochs", **epochs) == 0
    steps, epochs = (last_checkpoint(tmp_path / name) for name in ("steps", "epochs"))
    assert steps["global_step"] == epochs["global_step"] == 6
    assert steps["lr_schedulers"][0]["_last_lr"] == epochs["lr_schedulers"][0]["_last_lr"]
    assert equal(steps["state_dict"], epochs["state_dict"])


@pytest.mark.integration
def test_overfitting_repeats_the_same_batches_also_when_it_is_resumed(config, tmp_path, monkeypatch, order):
    monkeypatch.setattr(Witness, "seen", [])
    options = dict(
        trainer__overfit_batches=2, data__val="null", trainer__callbacks__plus="training.Witness", ckpt_path="last"
    )
    for stop in (3, 4, 5):
        assert vcgen("fit", config, tmp_path / "run", **options, trainer__max_steps=stop) == 0
    assert Witness.seen == [order[0], order[1]] * 2 + [order[0]]


def test_a_new_iterator_begins_at_the_position_that_was_set(order):
    stream = SceneStream(read_index("data/cars64/train"), 2, 1, seed=0)
    first = iter(stream)
    assert next(first).keys == order[0]
    stream.start = Position(0, 6)
    assert next(iter(stream)).keys == order[3] and next(first).keys == order[1]
