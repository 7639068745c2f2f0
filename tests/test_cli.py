"""The vcgen command: quick help without torch, clear one-line errors, exit statuses."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vcgen import __version__
from vcgen.cli import main as cli
from vcgen.errors import UserError


def vcgen(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "vcgen", *arguments], capture_output=True, text=True, timeout=60)


def test_help_names_every_command():
    result = vcgen("--help")
    assert result.returncode == 0
    assert all(f"  {name} " in result.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize("statement", ["import vcgen", "from vcgen.cli import main; main.main(['--help'])"])
def test_heavy_packages_are_not_imported(statement):
    heavy = {"torch", "torchvision", "lightning", "lpips", "transformers", "diffusers", "nerfacc", "numpy", "trimesh"}
    code = f"import sys; {statement}; print('LOADED', *({heavy!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "LOADED"


def test_no_arguments_print_the_help(capsys):
    assert cli.main([]) == 0
    assert capsys.readouterr().out.strip() == cli.usage()
    assert [line for line in cli.usage().splitlines() if len(line) > 80] == []


def test_the_help_of_a_group_lists_its_commands(capsys):
    assert cli.main(["data", "--help"]) == 0
    listed = [line[2:17].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == [name for name in cli.COMMANDS if name.startswith("data ")]


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_is_the_packages(flag):
    result = vcgen(flag)
    assert (result.returncode, result.stdout.strip()) == (0, __version__)


@pytest.mark.parametrize("words", [["trian"], ["data"], ["data", "repack"], ["--verbose"]])
def test_unknown_command_is_one_line_and_status_2(words):
    result = vcgen(*words)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("vcgen: error: unknown command")
    assert "evaluate" in result.stderr and "data pack" in result.stderr


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main([*name.split(), "--help"])
    assert exit.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out


def command(arguments: list[str]) -> None:
    """Stands in for a command below."""
    if arguments == ["--broken"]:
        raise UserError("no shards in somewhere; run vcgen data pack")
    if arguments[:1] == ["--system"]:
        code = int(arguments[1])
        raise OSError(code, os.strerror(code), *arguments[2:])
    print(arguments)


def test_commands_get_their_own_arguments_only(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", {"data pack": (f"{__name__}:command", ""), "fit": (cli.TRAINER, "")})
    assert cli.main(["data", "pack", "srn", "--out", "x"]) == 0
    assert capsys.readouterr().out == "['srn', '--out', 'x']\n"


def test_trainer_also_gets_the_word_that_chose_it(monkeypatch, capsys):
    trainer = f"{__name__}:command"
    monkeypatch.setattr(cli, "TRAINER", trainer)
    monkeypatch.setattr(cli, "COMMANDS", {"fit": (trainer, ""), "validate": (trainer, "")})
    cli.main(["validate", "-c", "a.yaml"])
    assert capsys.readouterr().out == "['validate', '-c', 'a.yaml']\n"


def test_user_errors_are_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr(cli, "COMMANDS", {"data pack": (f"{__name__}:command", "")})
    assert cli.main(["data", "pack", "--broken"]) == 2
    assert capsys.readouterr().err == "vcgen: error: no shards in somewhere; run vcgen data pack\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR])
def test_what_the_system_refuses_is_one_line_with_the_place(monkeypatch, capsys, code):
    monkeypatch.setattr(cli, "COMMANDS", {"export": (f"{__name__}:command", "")})
    assert cli.main(["export", "--system", str(code), "some/folder"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"vcgen: error: some/folder: {os.strerror(code)}; ") and line.count("\n") == 1
    assert ("make room" in line) == (code == errno.ENOSPC) and "choose another place" in line


@pytest.mark.parametrize(
    "words",
    [[errno.ENOENT, "forgotten.json"], [errno.EBADF], [errno.EACCES], [errno.ECONNRESET, "host"], [errno.EPIPE]],
)
def test_mistakes_of_the_program_keep_their_traceback(monkeypatch, words):
    monkeypatch.setattr(cli, "COMMANDS", {"export": (f"{__name__}:command", "")})
    with pytest.raises(OSError):
        cli.main(["export", "--system", *map(str, words)])


@pytest.mark.parametrize(
    ("error", "shown"), [(KeyboardInterrupt(), "vcgen: error: interrupted\n"), (KeyError(3), "KeyError: 3\n")]
)
def test_an_interruption_is_one_line(capsys, error, shown):
    cli.uncaught(type(error), error, None)
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize("arguments", ["--help", "data pack --help"])
def test_a_reader_that_has_had_enough_is_no_error(arguments):
    script = f"{sys.executable} -m vcgen {arguments} | true; echo ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert result.stderr == "" and result.stdout.strip() in ("141", "0")


def test_our_warnings_are_one_line_and_those_of_libraries_say_where():
    own = cli.one_line(
        UserWarning("the scene is fog"), UserWarning, str(Path(cli.__file__).parents[1] / "systems" / "x.py"), 7
    )
    assert own == "vcgen: warning: the scene is fog\n"
    assert cli.one_line(UserWarning("old"), UserWarning, "/else/where.py", 7) == "/else/where.py:7: UserWarning: old\n"
