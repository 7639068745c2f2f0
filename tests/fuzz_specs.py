"""What files may say, stated once more and in other words than by the schemas that read them: the fuzzer's own
judgment.

A rule is a function from a value to whether it is allowed.
"""

import math
import re
from collections.abc import Callable
from typing import Any

Rule = Callable[[Any], bool]


def whole(low: int, high: int) -> Rule:
    """An integer between two."""
    return lambda value: type(value) is int and low <= value <= high


def real(low: float, high: float) -> Rule:
    """A number between two, which is neither NaN nor infinite."""
    return lambda value: type(value) in (int, float) and low <= value <= high


def text(least: int = 0, most: int = 100_000, pattern: str = "(?s:.*)") -> Rule:
    """Characters, without halves of surrogate pairs."""

    def holds(value: Any) -> bool:
        return (
            isinstance(value, str)
            and least <= len(value) <= most
            and not re.search("[\ud800-\udfff]", value)
            and bool(re.fullmatch(pattern, value))
        )

    return holds


#: One line that a terminal shows as it is.
NAME = text(0, 200, "[^\\x00-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]*")
LABEL = text(1, 200, "[^\\x00-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff]*")
KEY = text(1, 80, "[A-Za-z0-9_-]*")
TEXT = text()


def anything(value: Any) -> bool:
    """No rule."""
    return True


def anything_written(value: Any) -> bool:
    """Any text."""
    return isinstance(value, str)


def one_of(*values: Any) -> Rule:
    """One of a few values; 1 is neither 1.0 nor True."""
    return lambda value: any(type(value) is type(other) and value == other for other in values)


def any_of(*rules: Rule) -> Rule:
    """By one of several rules."""
    return lambda value: any(rule(value) for rule in rules)


def rows(rule: Rule, least: int = 0, most: int = 100_000) -> Rule:
    """A list."""
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(rule, value))


def fixed(*rules: Rule) -> Rule:
    """A list with one rule for each value."""
    return lambda value: (
        isinstance(value, list) and len(value) == len(rules) and all(r(v) for r, v in zip(rules, value))
    )


def mapping(name: Rule, value: Rule, least: int = 0) -> Rule:
    """An object with any number of names."""
    return lambda found: (
        isinstance(found, dict) and len(found) >= least and all(name(k) and value(v) for k, v in found.items())
    )


def table(others: bool = False, **rules: Rule) -> Rule:
    """An object with these names; those that end in _ may be absent. others: whether there may be more."""
    known = {name.rstrip("_"): rule for name, rule in rules.items()}
    needed = {name for name in rules if not name.endswith("_")}

    def holds(value: Any) -> bool:
        if not isinstance(value, dict) or not needed <= value.keys() or not (others or value.keys() <= known.keys()):
            return False
        return all(known[name](part) for name, part in value.items() if name in known)

    return holds


def rigid(matrix: list[list[float]], far: float = 1e6) -> bool:
    """Whether four (or three) rows are a rotation and a position."""
    rotation, position = [row[:3] for row in matrix[:3]], [row[3] for row in matrix[:3]]
    products = [sum(rotation[k][i] * rotation[k][j] for k in range(3)) - (i == j) for i in range(3) for j in range(3)]
    a, b, c = rotation
    determinant = sum(a[i] * (b[(i + 1) % 3] * c[(i + 2) % 3] - b[(i + 2) % 3] * c[(i + 1) % 3]) for i in range(3))
    last = all(abs(x - y) < 2e-4 for x, y in zip(matrix[3], (0, 0, 0, 1))) if len(matrix) == 4 else True
    return all(abs(x) < 2e-4 for x in products) and determinant > 0 and all(abs(x) <= far for x in position) and last


def ascending(near: float, far: float) -> bool:
    """Whether two ray bounds are apart, as float32 too."""
    return near < far and math.ldexp(far - near, 20) > far


SIDE = whole(1, 16384)
UNIT = real(0, 1)
#: Of a model folder's configuration.
INPUT_CAMERA = table(
    others=True,
    focal=real(0.1, 50),
    distance=real(1e-6, 1e6),
    elevation=real(-90, 90),
    near=real(0, 1e6),
    far=real(0, 1e6),
)
MATRIX = fixed(*[fixed(*[real(-1e6, 1e6)] * 4)] * 4)
VIEWS = rows(whole(0, 99_999))
DRAW = table(draw=whole(1, 1 << 31), seed=whole(0, 1 << 53))
PROTOCOL = table(
    version=one_of(2),
    name=LABEL,
    context=any_of(one_of("listed"), rows(whole(0, 99_999), 1), DRAW),
    targets=any_of(one_of("all others", "all", "listed"), rows(whole(0, 99_999), 1), DRAW),
    size=fixed(SIDE, SIDE),
    background=UNIT,
    quantisation=one_of("8-bit-rounded"),
    metrics=table(
        psnr=one_of("db-per-image"),
        ssim=one_of("scikit-image"),
        ssim_gauss=one_of("gaussian-11-zero-padded"),
        lpips=one_of("v0.1"),
        psnr_unclamped_=one_of("db-per-image-of-floats"),
        ssim_skimage_gauss_=one_of("scikit-image-gaussian-11"),
        ssim_valid_=one_of("gaussian-11-valid"),
        ssim_valid_inferred_=one_of("gaussian-11-valid-inferred-range"),
        ssim_torchmetrics_=one_of("gaussian-11-reflected"),
        ssim_torchmetrics_inferred_=one_of("gaussian-11-reflected-inferred-range"),
        gmsd_=one_of("xue-2014"),
        dists_=one_of("vgg16"),
    ),
    split_=NAME,
    views_=whole(0, 99_999),
    description_=TEXT,
    objects_=any_of(one_of(None), mapping(KEY, table(context_=VIEWS, targets_=VIEWS))),
    lists_=one_of(None),
    unlisted_=one_of("refused", "left out"),
    score_context_=one_of(True, False),
    alpha_=one_of("blend", "binary", "ignore"),
    mask_=one_of("none", "object"),
    crop_=any_of(one_of(None), fixed(whole(0, 99_999), whole(0, 99_999), SIDE, SIDE)),
)
METRICS = {"psnr": real(0, 100), "ssim": real(-1.001, 1.001), "ssim_gauss": real(-1.001, 1.001)}
RECORD = table(
    fingerprint=table(
        model=TEXT,
        protocol=TEXT,
        data=TEXT,
        metrics=one_of(list(METRICS)),
        features_=rows(anything_written),
        weights_=mapping(TEXT, TEXT),
    ),
    object=KEY,
    group=NAME,
    seconds=real(0, 1e12),
    images=rows(table(view=whole(0, 99_999), name=anything, metrics=table(**METRICS)), 1),
)
RESULTS = table(
    name=NAME,
    mean=table(**METRICS),
    interval95=table(**dict.fromkeys(METRICS, any_of(one_of(None), fixed(real(-1e12, 1e12), real(-1e12, 1e12))))),
    counts=mapping(TEXT, whole(0, 1 << 53)),
    protocol=mapping(TEXT, anything),
    definitions=mapping(TEXT, TEXT),
    versions=mapping(TEXT, NAME),
    hashes=table(others=True, protocol=TEXT, data=TEXT),
    run=mapping(TEXT, anything),
    missing_=mapping(TEXT, TEXT),
    skipped_=mapping(TEXT, TEXT),
    baselines_=mapping(TEXT, mapping(TEXT, anything)),
    model_=mapping(TEXT, anything),
    objects=anything,
    images=anything,
    distances_=mapping(
        TEXT, table(value=real(-1e12, 1e12), definition=TEXT, predicted=whole(0, 1 << 53), true=whole(0, 1 << 53))
    ),
    columns_=mapping(
        TEXT,
        table(
            title=TEXT,
            definition=TEXT,
            higher_is_better=one_of(True, False),
            low=real(-1e12, 1e12),
            high=real(-1e12, 1e12),
            decimals_=whole(0, 12),
        ),
    ),
)
CAPTIONS = mapping(KEY, table(names=rows(LABEL, 1), front_=any_of(one_of(None), real(-360, 360))), 1)
NOTE = table(others=True, phrase=LABEL, method_=NAME, prior_=TEXT)
CAMERAS = table(
    version=one_of(1),
    c2w=rows(MATRIX, 2),
    K=rows(fixed(*[fixed(*[real(-1e6, 1e6)] * 3)] * 3), 2),
    size=fixed(SIDE, SIDE),
    t_near=real(0, 1e6),
    t_far=real(0, 1e6),
    up=fixed(*[real(-1e6, 1e6)] * 3),
    views_=any_of(one_of(None), rows(text(0, 1000), 2)),
    distance_=one_of("euclidean"),
    background_=one_of("alpha"),
    scale_=real(1e-12, 1e12),
    source_=TEXT,
    split_=NAME,
    licence_=TEXT,
    group_=NAME,
)


def cameras(tree: Any, size: list[int], images: int) -> bool:
    """Whether ``cameras.json`` can stand for a scene of so many images of a size."""
    if not CAMERAS(tree) or tree["size"] != size or not len(tree["c2w"]) == len(tree["K"]) == images:
        return False
    views, K = tree.get("views") or [f"{i:06d}" for i in range(images)], tree["K"]
    lens = all(0.1 <= k[i][i] <= 50 and -2 <= k[i][2] <= 3 for k in K for i in (0, 1))
    rest = all(max(map(abs, (k[0][1], k[1][0], k[2][0], k[2][1], k[2][2] - 1))) < 1e-5 for k in K)
    names = len(set(views)) == len(views) == images
    return (
        lens
        and rest
        and names
        and all(map(rigid, tree["c2w"]))
        and ascending(tree["t_near"], tree["t_far"])
        and any(tree["up"])
    )
