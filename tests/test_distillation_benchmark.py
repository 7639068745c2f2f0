"""benchmarks/distillation.py: what it reads again, and that its filed table says what its filed figures say."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import distill_sweep  # noqa: E402
import distillation  # noqa: E402
import distillation_tables  # noqa: E402
from vcgen.checkpoints import model_folder as folder  # noqa: E402
from vcgen.errors import UserError  # noqa: E402
from vcgen.evaluation.protocol import load_protocol  # noqa: E402
from vcgen.evaluation.records import ImageScore, ObjectScore  # noqa: E402
from vcgen.evaluation.results import Results, collect  # noqa: E402
from vcgen.guidance.sds import SDS  # noqa: E402
from vcgen.io import file_sha256  # noqa: E402

PROTOCOL = ROOT / "configs" / "protocols" / "cars64_view0_sparse.json"


class Method:
    """Nothing is rendered by it."""

    def __init__(self, settings: str):
        self.settings = settings


@pytest.fixture
def model(tmp_path) -> Path:
    camera = {"focal": 1.0, "distance": 1.3, "elevation": 20.0, "near": 0.8, "far": 1.8}
    config = {"class_path": "any", "init_args": {}, "image_size": [64, 64], "camera": camera, "background": 1.0}
    return folder.save(tmp_path / "model", {"weight": torch.zeros(2)}, config)


def finished(out: Path, model: Path, settings: str) -> Results:
    """A folder as a run that got through leaves it."""
    protocol = load_protocol(PROTOCOL)
    data = file_sha256(ROOT / "data" / "cars64" / "test" / "index.json")
    hashes = {
        **folder.hashes(model),
        "method": settings,
        "protocol": protocol.sha256,
        "data": data,
        "lpips_squeeze": "any",
    }
    scores = [ObjectScore(f"car{number}", "", 1.0, (ImageScore(20, "20", {"psnr": 20.0}),)) for number in range(15)]
    result = collect("ngd", scores, protocol, versions={}, hashes=hashes, run={})
    out.mkdir()
    result.save(out)
    (out / "kept.json").write_text(json.dumps({"virtual": 30.0}))
    return result


def test_earlier_results_of_the_same_model_and_settings_are_read_again(model, tmp_path):
    result = finished(tmp_path / "ngd", model, "gamma 0.5")
    found, kept = distillation.score("ngd", Method("gamma 0.5"), model, PROTOCOL, tmp_path / "ngd", "cpu")
    assert found.mean == result.mean and kept == {"virtual": 30.0}


def test_earlier_results_of_another_model_settings_or_protocol_are_refused(model, tmp_path):
    finished(tmp_path / "ngd", model, "gamma 0.5")
    other = folder.save(tmp_path / "other", {"weight": torch.ones(2)}, folder.read_config(model))
    dense = PROTOCOL.with_name("cars64_view0.json")
    for wrong, settings, protocol, what in (
        (model, "gamma 1.0", PROTOCOL, "method"),
        (other, "gamma 0.5", PROTOCOL, "weights"),
        (model, "gamma 0.5", dense, "protocol"),
    ):
        with pytest.raises(UserError, match=f"results of other {what}: delete it, or give another --out") as error:
            distillation.score("ngd", Method(settings), wrong, protocol, tmp_path / "ngd", "cpu")
        assert "\n" not in str(error.value)


def test_what_an_interrupted_run_left_is_not_mixed_with_the_next(model, tmp_path, monkeypatch):
    """Its objects' images were never written: they must be rendered again."""
    for part in ("fields", "records"):
        (tmp_path / "ngd" / part).mkdir(parents=True)
        (tmp_path / "ngd" / part / "old").write_text("")

    class Reached(Exception):
        pass

    def evaluate(system, data, protocol, out, origin, settings):
        assert list(out.rglob("old")) == []
        raise Reached

    monkeypatch.setattr(distillation, "evaluate_system", evaluate)
    with pytest.raises(Reached):
        distillation.score("ngd", Method("gamma 0.5"), model, PROTOCOL, tmp_path / "ngd", "cpu")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks" / "results").glob("*_distillation_*.json")), ids=lambda path: path.stem
)
def test_the_filed_tables_are_those_of_the_filed_figures(path):
    rows = json.loads(path.read_text())["rows"]
    written = Path(f"{path.parent / path.stem}.md").read_text().split("\n\n", 1)[1]
    assert written == "\n".join(distillation_tables.report(rows)) + "\n"
    # By hand, from the means that stand in the figures: SSIM is a column of its own.
    first, last = rows[0], rows[-1]
    assert (
        f"| {last['name']} | {last['psnr'] - first['psnr']:+.2f} (" in written
        and f"| {last['ssim'] - first['ssim']:+.3f} (" in written
    )
    assert f"| {last['lpips'] - first['lpips']:+.3f} (" in written


def scored_rows() -> list[dict]:
    row = lambda name, psnr, ssim, lpips: {"name": name, "psnr": psnr, "ssim": ssim, "lpips": lpips}
    return [
        row("sds", 21.0, 0.82, 0.14),
        row("sds_guided", 20.6, 0.81, 0.12),
        row("ngd_gamma0", 21.0, 0.82, 0.15),
        row("ngd_gamma0_guided", 20.8, 0.81, 0.14),
        row("ngd", 20.9, 0.825, 0.125),
    ]


def test_methods_are_compared_at_the_last_ones_lpips():
    lines = distillation_tables.level(scored_rows())
    assert lines[1] == "At LPIPS 0.1250:" and lines[-2:] == ["| sds | 20.70 | 0.8125 |", "| ngd | 20.90 | 0.8250 |"]
    assert not any("gamma0" in line for line in lines)  # NGD lies outside its scales


def test_methods_are_paired_there_object_by_object():
    """By hand: three quarters of the way from SDS to its higher scale; two objects, each a model of its own."""
    rows, results = scored_rows(), []
    for name, psnrs in {
        "sds": (20.0, 22.0),
        "sds_guided": (20.0, 21.2),
        "ngd_gamma0": (0, 0),
        "ngd_gamma0_guided": (0, 0),
        "ngd": (20.5, 21.3),
    }.items():
        objects = [
            {"object": o, "group": o, "psnr": psnr, "ssim": 0.5 + (name == "ngd") * 0.001}
            for o, psnr in zip("ab", psnrs)
        ]
        results.append(Results(name, {}, {}, {}, {}, {}, {}, {}, {}, objects=objects))
    distillation_tables.add_beside(rows, results)
    (found,) = rows[-1]["beside"].values()  # gamma 0 lies outside
    assert found["psnr"]["mean"] == pytest.approx((0.5 - 0.1) / 2) and found["psnr"]["improved"] == 0.5
    assert found["psnr"]["interval"] == pytest.approx((-0.1, 0.5)) and found["ssim"]["mean"] == pytest.approx(0.001)
    assert (
        distillation_tables.beside(rows)[-1]
        == "| sds | +0.20 (-0.10 to +0.50); 50% | +0.0010 (+0.0010 to +0.0010); 100% |"
    )
    assert distillation_tables.beside(rows[:1]) == []


def test_without_weights_for_lpips_all_else_is_reported(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VCGEN_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    protocol, results, rows = load_protocol(PROTOCOL), [], []
    for name, psnr in (("amortized", 20.0), ("sds", 21.0), ("sds_guided", 22.0), ("ngd", 21.5)):
        images = (ImageScore(20, "20", {"psnr": psnr, "ssim": 0.75}),)
        scores = [ObjectScore(f"car{number}", f"{number}", 1.0, images) for number in range(15)]
        hashes = {"protocol": protocol.sha256, "data": "any"}
        results.append(
            collect(name, scores, protocol, versions={}, hashes=hashes, model={}, run={"seconds_per_view": 1.0})
        )
        rows.append(distillation.row(name, results[-1], {"virtual": None}, results[0]))
    distillation.add_kid(rows, tmp_path, "cpu")
    assert "without KID: no weights for" in capsys.readouterr().err
    distillation_tables.add_beside(rows, results)
    lines = distillation_tables.report(rows)
    assert "| ngd | 21.50 (21.50 to 21.50) | 0.750 (0.750 to 0.750) |  |  |  | 1.0 |" in lines
    assert lines[-1] == "| ngd | +1.50 (+1.50 to +1.50); 100% | +0.000 (+0.000 to +0.000); 0% |  |"


def test_a_setting_of_the_sweep_changes_what_it_names():
    read = lambda text: distill_sweep.stage(text, str(ROOT / "configs" / "distill.yaml"), quick=False)
    guidance, options = read("{}")
    assert read('{"gamma": 2.0, "views": 24}') == (replace(guidance, gamma=2.0), replace(options, views=24))
    sds = SDS(rounds=8, updates=guidance.updates)
    assert read('{"guidance": "SDS", "rounds": 8, "guidance_scale": 1.05}') == (
        sds,
        replace(options, guidance_scale=1.05),
    )
    for wrong in (
        '{"gama": 0}',
        "gamma: 0",
        "[1]",
        '{"eta": 2}',
        '{"guidance": "SJC"}',
        '{"guidance": "SDS", "eta": 1}',
    ):
        with pytest.raises(UserError, match="not a setting") as error:
            read(wrong)
        assert "\n" not in str(error.value)
