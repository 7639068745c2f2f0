"""The position in the data across runs of the fit command: other batch sizes go on in the epoch, other data and seeds
are refused.
"""

import pytest
import torch

from ranks import vcgen_ranks
from training import CONFIG, Witness, last_checkpoint, load, refusal, vcgen
from vcgen.data.shards.files import read_index

SCENES = 155  # of the bundled training set


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that stopped after three steps of two scenes, with its configuration."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "tiny.yaml").write_text(CONFIG)
    Witness.seen = []
    options = dict(trainer__callbacks__plus="training.Witness", data__val="null")
    assert vcgen("fit", folder / "tiny.yaml", folder, trainer__max_steps=3, **options) == 0
    (folder / "seen.txt").write_text("\n".join(sum(Witness.seen, ())))
    return folder


def go_on(stopped, root, **options) -> int:
    path = stopped / "checkpoints" / "last.ckpt"
    return vcgen("fit", stopped / "tiny.yaml", root, **({"ckpt_path": path, "data__val": "null"} | options))


def test_the_checkpoint_says_where_in_which_data_the_run_is(stopped):
    state = last_checkpoint(stopped)["ShardData"]
    assert (state["epoch"], state["scenes"], state["seed"], state["ranks"], state["batch_size"]) == (0, 6, 0, 1, 2)
    assert len(state["data"]) == 64


@pytest.mark.integration
def test_another_batch_size_goes_on_in_the_epoch_without_repeating_or_skipping_a_scene(
    stopped, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(Witness, "seen", [])
    options = dict(
        trainer__callbacks__plus="training.Witness", data__batch_size=29, data__targets=1, model__rays_per_view=4
    )
    assert len(read_index("data/cars64/train").samples) == SCENES
    steps = (SCENES - 6) // 29
    assert go_on(stopped, tmp_path, trainer__max_steps=3 + steps, data__num_workers=2, **options) == 0
    assert caplog.text.count("going on with 1 rank(s) x 29 scenes instead of 1 rank(s) x 2 scenes") == 1
    seen = [*(stopped / "seen.txt").read_text().split(), *sum(Witness.seen, ())]
    assert len(seen) == len(set(seen)) == 6 + 29 * steps > SCENES - 29


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("seed_everything", 1, "trained with seed 0, here it is 1; give --seed_everything 0"),
        ("data__hold_out", 2, "other scenes than data.train and data.hold_out give"),
        ("data__train", "data/cars64/test", "other scenes than data.train and data.hold_out give"),
    ],
)
def test_other_data_and_seeds_are_refused_with_the_way_to_start_from_the_weights(
    stopped, tmp_path, capsys, option, value, words
):
    line = refusal(capsys, go_on(stopped, tmp_path, **{option: value}))
    assert words in line and "--model.pretrained FOLDER" in line
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_checkpoint_that_counted_batches_is_refused(stopped, tmp_path, capsys):
    checkpoint = last_checkpoint(stopped)
    torch.save({**checkpoint, "ShardData": {"cursor": 3}}, tmp_path / "old.ckpt")
    line = refusal(capsys, go_on(stopped, tmp_path, ckpt_path=tmp_path / "old.ckpt"))
    assert "older vcgen, which counted batches" in line and "--model.pretrained FOLDER" in line


def test_validation_takes_a_checkpoint_of_other_data(stopped, tmp_path):
    path = stopped / "checkpoints" / "last.ckpt"
    assert (
        vcgen(
            "validate",
            stopped / "tiny.yaml",
            tmp_path,
            ckpt_path=path,
            data__train="data/cars64/test",
            seed_everything=1,
        )
        == 0
    )


@pytest.mark.integration
def test_two_processes_go_on_as_one_in_the_middle_of_an_epoch(tmp_path, caplog, monkeypatch):
    """Together they train on the scenes of a run that was one process all the time, batch by batch."""
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    options = dict(data__val="null", data__targets=1)
    ranks = dict(trainer__callbacks__plus="training.Ranks", trainer__callbacks__folder=tmp_path)
    assert vcgen_ranks(
        2, "fit", tmp_path / "tiny.yaml", tmp_path / "run", data__batch_size=2, trainer__max_steps=2, **options, **ranks
    ) == [0, 0]
    first = [load(tmp_path / f"rank{rank}.pt")["scenes"] for rank in range(2)]
    monkeypatch.setattr(Witness, "seen", [])
    options |= dict(trainer__callbacks__plus="training.Witness", trainer__max_steps=4, data__batch_size=4)
    assert vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "run", ckpt_path="last", data__num_workers=1, **options) == 0
    assert "going on with 1 rank(s) x 4 scenes instead of 2 rank(s) x 2 scenes" in caplog.text
    rest, Witness.seen = Witness.seen, []
    assert vcgen("fit", tmp_path / "tiny.yaml", tmp_path / "whole", **options) == 0
    together = [(*first[0][step : step + 2], *first[1][step : step + 2]) for step in (0, 2)]
    assert together + rest == Witness.seen and len(Witness.seen) == 4
