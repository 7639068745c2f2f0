"""Templates of prompts: which fields they may hold, and which they must."""

from collections.abc import Sequence
from string import Formatter


def fault_of(template: str, needed: Sequence[str], allowed: Sequence[str] = ()) -> str:
    """What is wrong with a template of ``str.format``, "" where nothing is.

    needed: names of the fields that it must hold, "" for {}; what stands for them would not reach the network
    otherwise. allowed: others that it may hold.
    """
    known = [*needed, *allowed]
    values = {name: "x" for name in known if name}
    try:
        template.format(*["x"] * known.count(""), **values)
        found = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except (LookupError, ValueError, AttributeError, TypeError):
        return f"the template {template!r} may hold {_shown(known)} alone"
    if missing := [name for name in needed if name not in found]:
        return f"the template {template!r} lacks {_shown(missing)}"
    return "" if template.strip() else "the template is empty"


def _shown(names: Sequence[str]) -> str:
    return " and ".join(f"{{{name}}}" for name in names) or "no field"
