"""What RealFusion watches while it trains: each fault is told once, in one line, when it can still be mended."""

import math
import warnings

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from small_realfusion import CONFIG
from text_folder import tiny_folder
from training import vcgen
from vcgen.systems.text_to_3d import monitor as realfusion_monitor
from vcgen.systems.text_to_3d.monitor import IN_A_ROW, WINDOW, SceneMonitor
from vcgen.systems.text_to_3d.outcome import Sides


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "realfusion.yaml"
    path.write_text(CONFIG.replace("prior: unused", f"prior: {tiny_folder(tmp_path / 'prior')}"))
    return path


def said_of(watch, values) -> list[str]:
    """The warnings that some steps give."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for value in values:
            watch(*value) if isinstance(value, tuple) else watch(value)
    lines = [str(line.message) for line in said]
    assert all("\n" not in line and ": " in line for line in lines)
    return lines


@pytest.mark.parametrize(
    ("opacity", "entropy", "progress", "words"),
    [
        (0.001, 0.01, 0.1, "empty"),
        (0.99, 0.01, 0.1, "fills the frame"),
        (0.3, 0.8, 0.9, "fog"),
        (0.3, 0.8, 0.1, None),
        (0.3, 0.1, 0.9, None),
    ],
)
def test_a_scene_that_goes_wrong_is_told_once(opacity, entropy, progress, words):
    said = said_of(SceneMonitor().watch, [(opacity, entropy, progress)] * 3 * WINDOW)
    assert [words in line for line in said] == ([True] if words else [])


@pytest.mark.parametrize(
    ("norms", "told"),
    [
        ([1.0] * WINDOW + [150.0] * 3 * IN_A_ROW, True),
        ([1.0] * WINDOW + ([150.0] * (IN_A_ROW - 1) + [1.0]) * 5, False),
        ([1.0] * WINDOW + [90.0] * 50, False),
        ([1.0] + [150.0] * 100, False),
        ([0.0] * WINDOW + [150.0] * 10, False),
        ([1.0] * WINDOW + [math.inf, math.nan] * 50, False),
        ([1.03**step for step in range(400)], False),
    ],
)
def test_gradients_far_above_their_median_for_several_steps_are_told_once(norms, told):
    """Not single steps, nor a slow growth, nor the first gradients of what was empty, nor what a loss scaler leaves
    out.
    """
    said = said_of(SceneMonitor().watch_gradients, norms)
    assert ["150 times" in line and "options.grid_lr" in line for line in said] == ([True] if told else [])


@pytest.mark.parametrize(
    ("alike", "progress", "told"), [(True, 0.5, True), (True, 1.0, True), (True, 0.4, False), (False, 1.0, False)]
)
def test_an_object_with_four_faces_is_told_once_from_half_of_the_run(alike, progress, told):
    face, other = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    images, monitor = np.stack([face, *[face if alike else other] * 3]), SceneMonitor()
    sides = Sides(images, images, images, np.ones((4, 16, 16), np.float32))
    said = said_of(monitor.faces, [(sides, progress)] * 2)
    assert ["resemble the front" in line and "prompt.negative_views" in line for line in said] == (
        [True] if told else []
    )
    assert monitor.faces(sides, progress) == pytest.approx(float(alike), abs=0.2)


@pytest.mark.parametrize(("opacity", "radius"), [(1.0, 0), (0.4, 8), (1.0, 1)], ids=["empty", "haze", "speck"])
def test_a_scene_with_nothing_to_compare_is_never_best(opacity, radius):
    """By its score alone, 0, it would be the best there is."""
    images, alpha = np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 32, 32), np.float32)
    alpha[:, 16 - radius : 16 + radius, 16 - radius : 16 + radius] = opacity
    assert math.isnan(SceneMonitor().faces(Sides(images, images, images, alpha), 1.0))
    alpha[1, 10:22, 10:22] = 1.0  # beside a front and a back that show nothing
    assert math.isnan(SceneMonitor().faces(Sides(images, images, images, alpha), 1.0)) == (radius != 1)
    alpha[:, 10:22, 10:22] = 1.0
    assert SceneMonitor().faces(Sides(images, images, images, alpha), 0.0) == pytest.approx(1)


def test_a_run_hands_its_gradients_and_its_faces_to_the_monitor(config, tmp_path, monkeypatch):
    """Validations come after 2, 4 and 6 of 6 steps: of the last two four faces are told; norms are those of
    TensorBoard.
    """
    norms, said = [], []
    monkeypatch.setattr(SceneMonitor, "watch_gradients", lambda self, norm: norms.append(norm))
    monkeypatch.setattr(SceneMonitor, "say", lambda self, what, line: said.append(what))
    monkeypatch.setattr(realfusion_monitor, "janus", lambda color, alpha: 0.99)
    assert vcgen("fit", config, tmp_path / "run", trainer__max_steps=6, trainer__gradient_clip_val=0.001) == 0
    assert said == ["faces", "faces"]
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    parts = [[point.value for point in events.Scalars(f"gradient_norm/{part}")] for part in ("scene", "background")]
    assert len(norms) == 6 and norms == pytest.approx([math.hypot(*both) for both in zip(*parts)], rel=1e-4)
    assert min(norms) > 0.001
