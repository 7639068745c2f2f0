"""Mistakes in the command line: one line with the option, what is wrong, the nearest one, and where the help is."""

import pytest

from vcgen.cli import main as cli, usage
from vcgen.cli.pack import FORMATS
from vcgen.errors import UserError, suggestion

RENDER = ["render", "--model", "m", "--image", "a.png", "--out", "o"]
EVALUATE = ["evaluate", "--model", "m", "--data", "d", "--protocol", "p", "--out", "o"]
PACK = ["data", "pack", "srn", "x", "y"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["render"], "--model, --image, --out must be given; see `vcgen render --help`"),
        (["render", "--model"], "--model needs a value; see `vcgen render --help`"),
        ([*RENDER, "--veiws", "3"], "unknown option --veiws (did you mean --views?); see `vcgen render --help`"),
        ([*RENDER, "--view", "3"], "unknown option --view (did you mean --views?); see `vcgen render --help`"),
        (
            [*RENDER, "--mesh_formt=ply"],
            "unknown option --mesh-formt (did you mean --mesh-format?); see `vcgen render --help`",
        ),
        ([*RENDER, "--bootstrap", "0"], "unknown option --bootstrap; see `vcgen render --help`"),
        ([*RENDER, "-v"], "unknown option -v; see `vcgen render --help`"),
        ([*RENDER, "--as-is", "stray"], "unexpected: stray; see `vcgen render --help`"),
        ([*RENDER, "--views", "1.5"], "--views must be a whole number, not 1.5; see `vcgen render --help`"),
        ([*RENDER, "--size", "large"], "--size must be a whole number, not large; see `vcgen render --help`"),
        ([*RENDER, "--fov", "nan"], "--fov must be a number, not nan; see `vcgen render --help`"),
        ([*RENDER, "--as-is=maybe"], "--as-is must be true or false, not maybe; see `vcgen render --help`"),
        (
            [*RENDER, "--mesh-format", "fbx"],
            "--mesh-format must be one of glb, ply, obj, stl, not fbx; see `vcgen render --help`",
        ),
        ([*RENDER, "--config", "README.md"], "--config: no YAML file of options; see `vcgen render --help`"),
        (
            [*EVALUATE, "--lpips", "vgg", "foo"],
            "--lpips must be one of vgg, squeeze, alex, none, not foo; see `vcgen evaluate --help`",
        ),
        ([*EVALUATE, "--views-per-call", "0"], "--views-per-call must be at least 1, not 0"),
        ([*EVALUATE, "--together", "0"], "--together must be at least 1, not 0"),
        ([*EVALUATE, "--together", "x"], "--together must be a whole number, not x; see `vcgen evaluate --help`"),
        ([*EVALUATE, "--lpips=[vgg]]"], "--lpips must be a list, not [vgg]]; see `vcgen evaluate --help`"),
        ([*EVALUATE, "--lpips"], "--lpips needs a value; see `vcgen evaluate --help`"),
        ([*EVALUATE, "--train", "t"], "--train is for the mean training image of --baselines: give that, too"),
        ([*EVALUATE, "--out", ""], "--out is empty: give a value; see `vcgen evaluate --help`"),
        (["data", "pack", "srn", "", "y"], "a word is empty: give a value; see `vcgen data pack --help`"),
        ([*EVALUATE, "--seed", "-1"], "--seed must lie between 0 and 9223372036854775807, not -1"),
        (["export", "--checkpoint", "c"], "--out must be given; see `vcgen export --help`"),
        (
            ["export", "--checkpoint", "c", "--out", "o", "--weights", "emaa"],
            "--weights must be one of ema, raw, not emaa; see `vcgen export --help`",
        ),
        (
            ["data", "pack", "srm", "x", "y"],
            (
                f"unknown format 'srm' (did you mean srn?): the formats are {', '.join(form.name for form in FORMATS)};"
                " write vcgen data pack FORMAT SOURCE OUT"
            ),
        ),
        (["data", "pack", "srn", "x"], "OUT must be given; see `vcgen data pack --help`"),
        ([*PACK, "z"], "unexpected: z; see `vcgen data pack srn --help`"),
        (
            [*PACK, "--backgroud", "white"],
            "unknown option --backgroud (did you mean --background?); see `vcgen data pack srn --help`",
        ),
        ([*PACK, "--near", "abc"], "--near must be a number, not abc; see `vcgen data pack srn --help`"),
        (
            ["data", "pack", "srn", "--skip-broken", "x", "y", "--near", "-1"],
            "--near -1 and --far 1.8: near must be 0 or more, and less than far",
        ),
        (["data", "inspect"], "FOLDER must be given; see `vcgen data inspect --help`"),
        (
            ["data", "inspect", "f", "--outt", "o"],
            "unknown option --outt (did you mean --out?); see `vcgen data inspect --help`",
        ),
        (["doctor", "--dat", "x"], "unrecognized arguments: --dat x; see `vcgen doctor --help`"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words, line, capsys):
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"vcgen: error: {line}\n"


@pytest.mark.parametrize(
    ("words", "near"), [(["exprot"], "export"), (["datta", "inspect"], "data inspect"), (["data", "pak"], "data pack")]
)
def test_a_misspelled_command_is_told_the_nearest(words, near, capsys):
    assert cli.main(words) == 2
    assert f"(did you mean {near}?); the commands are: fit," in capsys.readouterr().err


def test_nothing_is_suggested_where_nothing_is_near():
    assert (
        suggestion("--model", ["--help", "--out"]) == ""
        and suggestion("--viewz", ["--views", "--help"]) == " (did you mean --views?)"
    )


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (0, (1, 5), "--x must lie between 1 and 5 pixels, not 0"),
        (float("nan"), (0.5,), "--x must be at least 0.5 pixels, not nan"),
        (float("inf"), (0,), "--x must be at least 0 pixels, not inf"),
        (10**30, (0, 9), f"--x must lie between 0 and 9 pixels, not {10**30}"),
    ],
)
def test_numbers_out_of_their_range_are_refused(value, bounds, message):
    with pytest.raises(UserError) as refused:
        usage.within("--x", value, *bounds, what=" pixels")
    assert str(refused.value) == message
    usage.within("--x", None, *bounds)
    usage.within("--x", bounds[0], *bounds)
    with pytest.raises(UserError, match="--x must be more than 0, not 0"):
        usage.within("--x", 0, 0, strict=True)


@pytest.mark.parametrize("name", ["nonsense", "meta", "", "cuda:99"])
def test_devices_that_cannot_compute_are_refused(name):
    with pytest.raises(UserError, match=f"--device {name}: cannot be used .*; use auto, cpu or cuda"):
        usage.choose_device(name)
