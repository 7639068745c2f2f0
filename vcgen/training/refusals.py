"""Make one line of the long messages in which libraries refuse."""

import os
import re
import traceback
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from vcgen.errors import CLOSED, FULL, UserError
from vcgen.optim.sharding import OTHER_OPTIMIZER

#: Lines of jsonargparse's messages that repeat the input or describe Python types instead of the mistake.
NOISE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Expected a <class 'NoneType'>|Given value type:|Given value:|Expected"
    r" a path but|"
    r"Subclass types expect one of|a class path \(str\)|a dict with"
)
CLASS = re.compile(r"Problem with given class_path '(?:\w+\.)*(\w+)':")
KEY = re.compile(r'Parser key "([^"]+)":')
#: What is said of a value -> how we say it.
WORDS = (
    (CLASS, r"\1:"),
    (
        re.compile(r"Expected a dot import path string: (.*)"),
        r"no class is called \1 here; give its name, or package.module.Class",
    ),
    (re.compile(r"Unable to load config '(.*)'"), r"takes named values, such as {name: value}, not \1"),
    (re.compile(r"Expected an? (?:<class '(?:[\w.]+\.)?(\w+)'>|typing\.(\w+))"), r"expected \1\2"),
    (re.compile(r"expected Literal\[(.*?)\]"), r"expected one of \1"),
    (re.compile(r"\b(?:fit|validate)\.(data|model)\b"), r"\1"),
    (re.compile(r"<([\w.]+) object at 0x[0-9a-f]+>"), r"\1"),
)
#: A type that would have fitted, alone: one of several.
ALTERNATIVE = re.compile(r"expected (\w+|one of [^.]*)")


@contextmanager
def user_errors(command: str, nodes: int = 1) -> Iterator[None]:
    """Turns what libraries raise, where users can mend it, into UserError. nodes: on which the training runs."""
    try:
        yield
    except ArgumentError as error:
        raise UserError(f"{parse_refusal(str(error))}; see `vcgen {command} --help`") from error
    except UserError as error:
        raise UserError(worker_refusal(str(error))) from error
    except (MisconfigurationException, OmegaConfBaseException) as error:
        raise UserError(" ".join(str(error).split())) from error
    except OSError as error:
        if line := process_refusal(str(error)):
            raise UserError(line) from error
        if error.errno not in FULL and (error.filename is None or error.errno not in CLOSED):
            raise
        place = f"{error.filename}: " if error.filename else ""
        raise UserError(
            f"{place}{error.strerror}; choose a writable trainer.default_root_dir with free space"
        ) from error
    except Exception as error:
        message = str(error)
        line = process_refusal(message) or rendezvous_refusal(message, nodes, os.environ) or lightning_refusal(error)
        if "different number of parameter groups" in message:
            line = f"the checkpoint's {OTHER_OPTIMIZER}"
        if line is None:
            raise
        raise UserError(line) from error


def explain(error: BaseException, nodes: int = 1) -> str | None:
    """The line that users see for an exception in a training on so many nodes, or None where it ends with a
    traceback.
    """
    try:
        with user_errors("fit", nodes):
            raise error
    except UserError as refusal:
        return str(refusal)
    except BaseException:
        return None


def parse_refusal(message: str) -> str:
    """jsonargparse's explanation, indented and over many lines -> "model.layers: NerfDiff: expected int. Got value:
    many".
    """
    lines = [line.strip().removeprefix("- ") for line in message.splitlines()]
    lines = [line for line in lines if line and not NOISE.match(line)]
    keys = [key for line in lines for key in KEY.findall(line)]
    reasons = list(dict.fromkeys(reworded(KEY.sub("", line).strip()) for line in lines))
    kinds = [reason for reason in reasons if ALTERNATIVE.fullmatch(reason)]
    reasons = [
        reason
        for reason in reasons
        if reason and reason not in kinds and not reason.startswith('Unable to load config "')
    ]
    telling = [reason for reason in reasons if not reason.startswith("Not a valid subclass of")] or reasons
    while len(telling) > 1 and telling[-1].endswith(":"):  # of whose class the reason has been said
        telling.pop()
    # only names of classes: the types are all that is said
    if kinds and all(reason.endswith(":") for reason in telling):
        value = (
            re.search(r"Given value: (.*)", message)
            if "NestedArg" not in message
            else re.search(r", val='?(.*?)'?\)$", message)
        )
        fitting = " or ".join(kind.removeprefix("expected ") for kind in kinds)
        telling.append(f"expected {fitting}" + (f". Got value: {value[1]}" if value else ""))
    place = ".".join(key for key, before in zip(keys, [None, *keys], strict=False) if key != before)
    return " ".join([f"{place}:", *telling] if place else telling)


def reworded(reason: str) -> str:
    """One line of jsonargparse's in our words."""
    for pattern, words in WORDS:
        reason = pattern.sub(words, reason)
    return reason


def worker_refusal(message: str) -> str:
    """An error that a loader process raised carries its traceback; the last line is what was raised."""
    last = message.strip().splitlines()[-1] if message.strip() else message
    return re.sub(r"^(?:\w+\.)*UserError: ", "", last)


def process_refusal(message: str) -> str | None:
    """The line for a run that has lost a loader process, or cannot serve them; None for any other message."""
    if "Too many open files" in message:
        return "too many open files: raise the limit by `ulimit -n`, or lower data.num_workers"
    if found := re.search(
        r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: (\w+)|exited unexpectedly)", message
    ):
        how = f"was killed ({found[1]})" if found[1] else "ended unexpectedly"
        return (
            f"a loader process {how}, most often for lack of memory: lower data.num_workers or ask for more; go on with"
            " --ckpt_path last"
        )
    return None


def lightning_refusal(error: Exception) -> str | None:
    """The line for an exception that Lightning raises of its own accord, since it cannot do what it was told; None for
    any other.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "/lightning/" not in frames[-1].filename or not (frames[-1].line or "").startswith("raise "):
        return None
    return " ".join(str(error).split())


def rendezvous_refusal(message: str, nodes: int, environ: Mapping[str, str]) -> str | None:
    """The line for processes that have not found one another; None for any other message.

    nodes: on which the training is to run. environ: where MASTER_ADDR, MASTER_PORT and NODE_RANK stand, which each of
        them needs.
    """
    address, port = (environ.get(name, "not set") for name in ("MASTER_ADDR", "MASTER_PORT"))
    here = environ.get("NODE_RANK", "0")
    if re.search(r"EADDRINUSE|[Aa]ddress already in use", message):
        return f"port {port} of {address} (MASTER_PORT) is in use; set another one, the same on all nodes"
    if not re.search(r"clients joined|(client|server) socket|wait timeout after", message):
        return None
    joined = re.search(r"(\d+)/(\d+) clients joined", message)
    found = f"{joined[1]} of {joined[2]} processes" if joined else "this process"
    others = ", ".join(str(node) for node in range(nodes) if str(node) != here) or "none"
    place = (
        f"came to MASTER_ADDR {address}, port {port}: this is NODE_RANK {here} of {nodes} nodes, and waits for {others}"
    )
    advice = (
        "start the same command on every node, with the first one's MASTER_ADDR, one MASTER_PORT, and NODE_RANK 0 to"
        f" {nodes - 1}"
    )
    return f"only {found} {place}; {advice}"
