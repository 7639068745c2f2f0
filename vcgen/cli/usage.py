"""Command lines as people type them; what is wrong with one is said in one line: the option, the fault, the nearest
one, where the help is.

Of all commands but three: fit and validate are LightningCLI, whose parser builds objects of classes that the
configuration names; doctor must run where packages are missing, so it has only argparse of the standard library. So do
the programs in benchmarks/, whose few options need no more.
"""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Never, get_args, get_origin

from jsonargparse import ArgumentParser, auto_cli

from vcgen.errors import UserError, suggestion
from vcgen.terminal import one_line

#: Types as jsonargparse's messages write them -> in words.
TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "<class 'str'>": "text",
    "<class 'list'>": "a list",
}

#: What generators of random numbers take at most.
LARGEST_SEED = 2**63 - 1


class Parser(ArgumentParser):
    """jsonargparse's, whose refusals are one line and which takes no abbreviations: an option added later would change
    their meaning.
    """

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def format_help(self, *formatter: Any) -> str:
        """The text of ``--help``, with the types of options in words."""
        from vcgen.option_types import print_types_in_words

        print_types_in_words()
        return super().format_help(*formatter)

    def error(self, message: str, ex: Exception | None = None) -> Never:
        """Raise UserError for a mistake in the command line."""
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        raise UserError(
            one_line(explained(message, sorted(options_of(parser)))[:400], f"see `{command} --help`")
        ) from ex


def run(
    component: Callable[..., None] | dict[str, Callable[..., None]],
    arguments: list[str],
    prog: str,
    positional: bool = False,
    flags: Mapping[str, str] = {},
    shared: tuple[Callable[..., None], ...] = (),
    **parser: Any,
) -> None:
    """Parse a command line for a function, or for several by the word that chooses one, and call it with what was
    given.

    positional: its required parameters are given without names. flags: options that may stand without a value -> the
    value they have then; switches, parameters that are bool, are among them by themselves. shared: functions that take
    the component's further options. parser: of the parser."""
    parameters = [
        p for f in (component, *shared) if not isinstance(f, dict) for p in inspect.signature(f).parameters.values()
    ]
    lists = {f"--{p.name}" for p in parameters if _is_list(p.annotation)}
    switches = {f"--{p.name}" for p in parameters if p.annotation is bool}
    words = plain_words(arguments, lists, switches, flags)
    needed = {f"--{p.name}=" for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    if empty := [word for word in words if word in needed or (positional and not word)]:
        raise UserError(f"{shown(empty[0].strip('=')) or 'a word'} is empty: give a value; see `{prog} --help`")
    components: Any = component
    auto_cli(components, args=words, prog=prog, as_positional=positional, parser_class=Parser, **parser)


def plain_words(
    arguments: list[str], lists: set[str] = set(), switches: set[str] = set(), flags: Mapping[str, str] = {}
) -> list[str]:
    """What people type -> the form that the parser knows.

    ``lists`` take several words, and further ones when given again: ``--image a.png b.png`` -> ``--image=["a.png",
    "b.png"]``. ``switches`` are true when no value is given, ``flags`` what they map to: ``--as-is`` ->
    ``--as_is=true``. Hyphens do for underscores in the names of options: ``--mesh-resolution`` ->
    ``--mesh_resolution``."""
    words: list[str] = []
    position = 0
    while position < len(arguments):
        name, equals, value = arguments[position].partition("=")
        position += 1
        values = [value] if equals else []
        if not name.startswith("--"):
            words.append(name + equals + value)
            continue
        name = "--" + name[2:].replace("-", "_")
        while not equals and position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        if name in lists and values:
            whole = len(values) == 1 and values[0].startswith("[") and values[0].endswith("]")
            again = "+" if any(word.startswith(f"{name}=") for word in words) else ""
            words.append(f"{name}{again}={values[0] if whole else json.dumps(values)}")
        elif name in switches and not equals and values[:1] not in (["true"], ["false"]):
            words += [f"{name}=true", *values]
        elif name in flags and not values:
            words.append(f"{name}={flags[name]}")
        else:
            words += [f"{name}={values[0]}", *values[1:]] if values else [name]
    return words


def explained(message: str, known: list[str]) -> str:
    """What the parser says, in a few words. known: the options there are."""
    if found := re.fullmatch(r"unrecognized arguments: (.*)", message, re.DOTALL):
        options = [word for word in found[1].split() if word.startswith("-")]
        if not options:
            return f"unexpected: {found[1]}"
        option = shown(options[0].partition("=")[0])
        return f"unknown option {option}{suggestion(option, [shown(name) for name in known])}"
    if found := re.fullmatch(r"the following arguments are required: (.*)", message):
        names = [name.rpartition(".")[2] for name in found[1].split(", ")]
        return (
            f"{', '.join(shown(f'--{name}') if f'--{name}' in known else name.upper() for name in names)} must be given"
        )
    if found := re.fullmatch(r"argument ([\w-]+)(?:/\S+)?: expected (?:at least )?one argument", message):
        return f"{shown(found[1])} needs a value"
    if message.startswith(("Unexpected config", "Problems parsing config")):
        return "--config: no YAML file of options"
    if found := re.match(r'Parser key "([^"]+)":(.*)', message, re.DOTALL):
        name = found[1].rpartition(".")[2]
        return f"{shown(f'--{name}') if f'--{name}' in known else name.upper()} {wanted(found[2])}"
    return message


def wanted(reason: str) -> str:
    """What a value must be, of jsonargparse's explanation: "must be a whole number, not x"."""
    kinds = [
        kind
        for kind in re.findall(r"Expected an? (.+?)(?:\. Got value: .*)?$", reason, re.MULTILINE)
        if "NoneType" not in kind
    ]
    got = re.search(r"(?:Got|Given) value: (.*)$|: (.+) does not conform|base 10: '(.+)'$", reason, re.MULTILINE)
    if not kinds:
        return " ".join(reason.split())
    choices = re.match(r"typing\.Literal\[(.*)\]", kinds[0])
    kind = f"one of {choices[1].replace(chr(39), '')}" if choices else TYPES.get(kinds[0], kinds[0])
    return f"must be {kind}{f', not {next(filter(None, got.groups()))}' if got else ''}"


def within(
    option: str, value: float | None, lowest: float, highest: float = math.inf, what: str = "", strict: bool = False
) -> None:
    """Raise UserError unless a number, where one is given, is finite and lies in [lowest, highest]; strict: in (lowest,
    highest).

    what: the unit, as " degrees", or what else may be given.
    """
    if value is None or (math.isfinite(value) and (lowest < value < highest if strict else lowest <= value <= highest)):
        return
    least = "more than" if strict else "at least"
    low, high, found = (number if isinstance(number, int) else f"{number:.12g}" for number in (lowest, highest, value))
    bounds = f"be {least} {low}" if math.isinf(highest) else f"lie between {low} and {high}"
    raise UserError(f"{option} must {bounds}{what}, not {found}")


def chosen(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The words of a list with commas, each of which must be known; UserError where one is not, or there is none."""
    words = tuple(word.strip().lstrip(".").lower() for word in text.split(","))
    if unknown := [word for word in words if word not in known]:
        raise UserError(f"{option}: {unknown[0]!r} is not known; give some of {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def pattern(option: str, text: str) -> str:
    """A regular expression with at least one group, or "", unchanged; raises UserError for others."""
    try:
        if text and re.compile(text).groups < 1:
            raise UserError(f"{option} {text!r}: needs a group in parentheses, e.g. '(.+)_[0-9]+'")
    except re.error as error:
        raise UserError(f"{option} {text!r}: not a regular expression ({error})") from error
    return text


def choose_device(name: str) -> str:
    """``auto`` -> cuda if there is a GPU, else cpu; UserError for a device that cannot be used."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not torch.empty(1, device=name).is_meta:
            return name
        reason = "it computes nothing"
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise UserError(one_line(f"--device {name}: cannot be used ({reason})"[:300], "use auto, cpu or cuda"))


def options_of(parser: ArgumentParser) -> Iterator[str]:
    """The long options of a parser."""
    for action in parser._actions:
        yield from (
            name for name in action.option_strings if name.startswith("--") and not name.endswith(("+", ".help"))
        )


def shown(option: str) -> str:
    """An option as it is written in the docs."""
    return option.replace("_", "-") if option.startswith("--") else option


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(get_origin(kind) is list for kind in get_args(annotation))
