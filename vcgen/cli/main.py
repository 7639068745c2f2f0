"""The ``vcgen`` command: a table of commands; nothing heavy is imported until one is chosen."""

import importlib
import os
import select
import signal
import sys
import traceback
import warnings
from pathlib import Path, PurePosixPath
from types import TracebackType

from vcgen import __version__
from vcgen.errors import UserError, suggestion, system_refusal
from vcgen.memory import keep_freed_memory
from vcgen.redaction import hide
from vcgen.terminal import complain, printable

TRAINER = "vcgen.training.launch:main"
#: The configurations that come with vcgen: a link to ``configs/`` in a checkout, files where vcgen is installed.
CONFIGS = Path(__file__).parents[1] / "configs"

#: command words -> (``module:function`` taking the remaining arguments and returning an exit status or None, one line
#: of help)
COMMANDS: dict[str, tuple[str, str]] = {
    "fit": (TRAINER, "train: vcgen fit -c configs/cars64.yaml [--key value]"),
    "validate": (TRAINER, "run the validation loop of a configuration"),
    "data pack": ("vcgen.cli.pack:main", "posed images -> shards: vcgen data pack FORMAT SOURCE OUT"),
    "data poses": ("vcgen.cli.poses:main", "photos -> cameras, and shards: vcgen data poses PHOTOS OUT"),
    "data render": ("vcgen.cli.render_meshes:main", "mesh files -> shards: vcgen data render MESHES OUT"),
    "data unpack": ("vcgen.cli.unpack:main", "furniture libraries (.sh3f) -> mesh files"),
    "data synthesize": ("vcgen.cli.synthesize:main", "shards by code: vcgen data synthesize cars OUT --count 1000"),
    "data inspect": ("vcgen.cli.inspect:main", "summarize shards; draw images, cameras and epipolar lines"),
    "evaluate": ("vcgen.cli.evaluate:main", "measure a model folder: PSNR, SSIM, LPIPS, report.html"),
    "evaluate-text": ("vcgen.cli.evaluate_text:main", "measure scenes made of texts: R-precision by a CLIP model"),
    "export": ("vcgen.cli.export:main", "checkpoint -> model folder (safetensors + config.json)"),
    "render": ("vcgen.cli.render:main", "one image -> novel views, turntable, depth, mesh"),
    "doctor": ("vcgen.cli.doctor.command:main", "what is missing on this computer, and how to mend it"),
}


def usage(group: str = "") -> str:
    """The text of ``vcgen --help``; of the commands that begin with ``group`` alone, such as ``"data "``."""
    lines = [f"vcgen {__version__}: view-conditioned 3D generation", "", "usage: vcgen COMMAND [arguments]", ""]
    lines += [f"  {name:<15} {text}" for name, (_, text) in COMMANDS.items() if name.startswith(group)]
    return "\n".join([*lines, "", "`vcgen COMMAND --help` explains a command."])


def shipped(word: str) -> str:
    """A word of a command line: ``configs/NAME``, alone or after ``--option=``, becomes the path of vcgen's own file of
    that name where the folder one works in has none.
    """
    option, equals, name = word.partition("=") if word.startswith("-") else ("", "", word)
    path = PurePosixPath(name)
    if path.parts[:1] != (CONFIGS.name,) or os.path.exists(name):  # pathlib's raise for names that no file can have
        return word
    own = CONFIGS.joinpath(*path.parts[1:])
    return f"{option}{equals}{own}" if os.path.isfile(own) else word


def one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Our own warnings are for users, as errors are; those of libraries keep the place they come from."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return hide(f"vcgen: warning: {printable(str(message))}\n")
    return hide(f"{filename}:{lineno}: {category.__name__}: {printable(str(message))}\n")


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What is printed of an exception that ends the process: of Ctrl-C a line, of a mistake of the program where it
    is.
    """
    if issubclass(kind, KeyboardInterrupt):
        complain("interrupted")
    else:
        print(hide("".join(traceback.format_exception(kind, error, trace))), file=sys.stderr, end="")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status. Errors the user can mend are printed as one line, with status 2."""
    try:
        status = command(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not reader_is_gone():  # another pipe: to ffmpeg, or to a loader process
            raise
        # Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def reader_is_gone() -> bool:
    """Whether standard output is a pipe whose reader, such as `head`, has had enough."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file behind it
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def command(arguments: list[str] | None) -> int:
    """See :func:`main`."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        print(__version__)
        return 0
    count = 2 if " ".join(words[:2]) in COMMANDS else 1
    name = " ".join(words[:count])
    if words[1:] in (["-h"], ["--help"]) and any(known.startswith(f"{name} ") for known in COMMANDS):
        print(usage(f"{name} "))
        return 0
    if name not in COMMANDS:
        near, known = suggestion(" ".join(words[:2]), COMMANDS) or suggestion(words[0], COMMANDS), ", ".join(COMMANDS)
        complain(f"unknown command {name!r}{near}; the commands are: {known}")
        return 2
    if arguments is None:
        warnings.formatwarning = one_line
        sys.excepthook = uncaught
        keep_freed_memory()
    if arguments is None and COMMANDS[name][0] == TRAINER:
        # Before a training listens and after it is over, SLURM's warning of the time limit must not kill it, as it
        # would by default.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    words = [shipped(word) for word in words]
    module, function = COMMANDS[name][0].split(":")
    run = getattr(importlib.import_module(module), function)
    try:
        return run(words if COMMANDS[name][0] == TRAINER else words[count:]) or 0
    except UserError as error:
        complain(str(error))
        return 2
    except OSError as error:
        if (line := system_refusal(error)) is None:
            raise
        complain(line)
        return 2
