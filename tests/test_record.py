import dataclasses
import json

import numpy as np
import pytest

from scenes import make_record, noise, png, set_at
from vcgen.data.shards.record import SceneRecord, decode_views, natural_order
from vcgen.errors import UserError


def changed(values: np.ndarray, index: tuple, value: float) -> np.ndarray:
    copy = values.copy()
    copy[index] = value
    return copy


def refusal(record: SceneRecord) -> str:
    """The one line by which the record is refused."""
    with pytest.raises(UserError) as error:
        record.validate()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_valid_record_passes_and_cameras_survive_json():
    record = make_record(up=(0.0, 1.0, 0.0), scale=0.5, source="s", split="test", licence="CC0", group="g").validate()
    again = SceneRecord.from_cameras_json(record.key, json.dumps(record.cameras_json()).encode(), record.images)
    for field in dataclasses.fields(record):
        assert np.array_equal(getattr(again, field.name), getattr(record, field.name)), field.name


def test_the_group_is_the_key_unless_given():
    record = make_record("car_1")
    assert (
        SceneRecord.from_cameras_json("car_1", json.dumps(record.cameras_json()).encode(), record.images).group
        == "car_1"
    )


def test_decoded_views_are_the_stored_pixels():
    pixels = [noise(i) for i in range(3)]
    rgb, alpha = decode_views(make_record(images=[png(p) for p in pixels]), [2, 0])
    assert rgb.dtype == np.float32 and rgb.shape == (2, 3, 8, 6) and alpha.shape == (2, 1, 8, 6)
    assert np.array_equal(np.round(rgb[0] * 255), pixels[2][..., :3].transpose(2, 0, 1))
    assert np.array_equal(np.round(alpha[1] * 255), pixels[0][..., 3:].transpose(2, 0, 1))


def test_opaque_images_have_no_alpha():
    record = make_record(images=[png(noise(i, channels=3)) for i in range(3)], background="white").validate()
    assert decode_views(record, [0])[1] is None


def test_a_pose_with_nan_is_refused_by_scene_and_view():
    record = make_record("car")
    line = refusal(dataclasses.replace(record, c2w=changed(record.c2w, (1, 0, 3), np.nan)))
    assert "scene car, view 000001" in line and "NaN" in line


def test_a_rotation_that_is_not_orthonormal_is_refused_and_rounding_is_not():
    record = make_record()
    bent = record.c2w.copy()
    bent[2, :3, :3] *= 1.001
    line = refusal(dataclasses.replace(record, c2w=bent))
    assert "view 000002" in line and "not orthonormal" in line
    dataclasses.replace(record, c2w=record.c2w.astype(np.float32).astype(np.float64)).validate()


def test_a_mirrored_pose_is_refused():
    record = make_record()
    assert "mirror" in refusal(dataclasses.replace(record, c2w=record.c2w @ np.diag([-1.0, 1, 1, 1])))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -1e200, 1e7])
@pytest.mark.parametrize("entry", [(0, 0, 0), (0, 1, 2), (0, 0, 3), (0, 3, 0)])
def test_numbers_that_no_pose_has_are_refused_without_a_warning(value, entry, recwarn):
    record = make_record()
    assert (
        "view 000000" in refusal(dataclasses.replace(record, c2w=changed(record.c2w, entry, value)))
        and not recwarn.list
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("c2w", []),
        ("c2w.0", [[1, 0, 0, 0]]),
        ("c2w.0.0.0", "1"),
        ("c2w.0.0.0", None),
        ("c2w", {}),
        ("c2w.0.0.0", 10**400),
        ("K", ...),
        ("K.0.0", 1.0),
        ("size", [8]),
        ("size", [[8], [6]]),
        ("size", [8, 6, 3]),
        ("size", [8, 10**9]),
        ("size", [8.5, 6]),
        ("t_near", "0.8"),
        ("t_near", True),
        ("up", [0, 1]),
        ("views", "abc"),
        ("views.0", 3),
        ("views.0", "1" * 5000),
        ("scale", []),
        ("split", ["train"]),
        ("group", "a\x1b[2J"),
        ("background", 1),
        ("camera", 1),
    ],
)
def test_a_cameras_file_of_other_types_is_refused(path, value):
    record = make_record()
    content = record.cameras_json()
    set_at(content, path, value)
    with pytest.raises(UserError, match="scene k: ") as error:
        SceneRecord.from_cameras_json("k", json.dumps(content).encode(), record.images).validate()
    assert str(error.value).isprintable()


def test_intrinsics_in_pixels_are_refused():
    record = make_record()
    assert "in pixels by mistake" in refusal(dataclasses.replace(record, K=changed(record.K, (0, 0, 0), 131.25)))
    assert "principal point" in refusal(dataclasses.replace(record, K=changed(record.K, (0, 0, 2), 32.0)))
    assert "skew" in refusal(dataclasses.replace(record, K=changed(record.K, (0, 0, 1), 0.1)))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"views": ["a", "a", "b"]}, "more than once"),
        ({"views": ["r_1", "r_10", "r_2"]}, "natural order"),
        ({"t_near": 1.8, "t_far": 0.8}, "near"),
        ({"t_near": -0.1}, "near"),
        ({"t_near": float("nan")}, "near"),
        ({"t_far": float("nan")}, "near"),
        ({"t_far": 1e300}, "near"),
        ({"t_near": 1.0, "t_far": 1.00000001}, "near"),  # equal in float32
        ({"up": (0, float("nan"), 1)}, "up"),
        ({"up": (0, 1e200, 0)}, "up"),
        ({"scale": float("inf")}, "scale"),
        ({"distance": "z"}, "euclidean"),
        ({"background": "green"}, "background"),
        ({"key": "a.b"}, "key"),
        ({"key": ""}, "key"),
        ({"up": (0, 0, 0)}, "up"),
        ({"scale": 0.0}, "scale"),
    ],
)
def test_malformed_settings_are_refused(changes, word):
    assert word in refusal(make_record(**changes))


def test_one_view_is_too_few():
    assert "at least 2" in refusal(make_record(count=1))


def test_images_that_are_damaged_or_differ_are_refused():
    good = make_record().images
    line = refusal(make_record(images=[good[0], good[1][:-20], good[2]]))
    assert "view 000001" in line and "truncated" in line
    assert "not a PNG" in refusal(make_record(images=[good[0], b"", good[2]]))
    line = refusal(make_record(images=[good[0], good[1], png(noise(2, 9, 6))]))
    assert "view 000002" in line and "9 x 6" in line
    line = refusal(make_record(images=[good[0], good[1], png(noise(2, channels=3))]))
    assert "RGB" in line and "RGBA" in line


def test_damage_inside_an_image_is_found_when_it_is_decoded():
    images = make_record().images
    middle = len(images[1]) // 2
    images[1] = images[1][:middle] + bytes(8) + images[1][middle + 8 :]
    with pytest.raises(UserError, match="view 000001"):
        decode_views(make_record(images=images), [0, 1])


def test_every_flipped_bit_of_an_image_is_found():
    """The decoder alone takes a quarter of them for other colors."""
    images = make_record().images
    for position in range(len(images[0])):
        damaged = bytearray(images[0])
        damaged[position] ^= 1 << position % 8
        with pytest.raises(UserError, match="view 000000"):
            decode_views(make_record(images=[bytes(damaged), *images[1:]]).validate(), [0])


def test_another_version_is_refused():
    with pytest.raises(UserError, match="version"):
        SceneRecord.from_cameras_json("k", b'{"version": 2}', [])


def test_numbers_in_names_count_as_numbers():
    assert sorted(["r_10", "r_2", "a", "r_1b"], key=natural_order) == ["a", "r_1b", "r_2", "r_10"]
