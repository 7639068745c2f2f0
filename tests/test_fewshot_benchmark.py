"""What benchmarks/fewshot.py measures on."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fewshot
from vcgen.data.shards.files import read_index
from vcgen.evaluation.protocol import load_protocol
from vcgen.evaluation.scope import tasks_of


def test_the_targets_are_the_same_whatever_the_number_of_input_views(tmp_path):
    found = [load_protocol(fewshot.of_test_cars(count, 3, tmp_path)) for count in fewshot.VIEWS]
    assert {protocol.targets for protocol in found} == {(1, 14, 27)}
    assert [len(protocol.context) for protocol in found] == list(fewshot.VIEWS)
    shipped = [fewshot.of_test_cars(count, fewshot.TARGETS, tmp_path) for count in fewshot.VIEWS]
    assert {path.parent.name for path in shipped} == {"protocols"}


def test_views_of_training_cars_are_predicted_that_training_never_draws(tmp_path):
    index = read_index(fewshot.CARS / "train")
    held_out = "--data.held_out_views=[7, 13]"
    assert held_out in fewshot.ALIKE
    for count in fewshot.TRAINING_VIEWS:
        protocol = load_protocol(fewshot.of_training_cars(count, tmp_path))
        tasks = [task for number in range(len(index.samples)) for task in tasks_of(index, number, protocol)]
        assert len(tasks) == 16 and {task.targets for task in tasks} == {(7, 13)}
        assert all(len(task.context) == count and not {7, 13} & set(task.context) for task in tasks)


def test_what_an_interrupted_run_has_not_measured_is_named(monkeypatch):
    monkeypatch.setattr(fewshot, "MEMBERS", {"triplane": (), "lfn": (), "gpnr": (), "lfnr": ()})
    measured = {"triplane": (1, 3, 5, 10), "lfn": (1,), "gpnr": (1, 3)}
    rows = [{"name": name, "minutes": 3, "views": count} for name, counts in measured.items() for count in counts]
    assert fewshot.unmeasured(rows, [3]) == ["gpnr with 5 and 10 views (3 minutes)", "lfnr (3 minutes)"]
