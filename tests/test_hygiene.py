"""Rules of the house that the linter does not know: nothing loaded is code, imports point one way, files stay small."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vcgen"
FILES = sorted(PACKAGE.rglob("*.py"))
ALL = [*FILES, *sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
#: The rooms of the package from the top down: a module imports from its own room and from those below it only, lazily
#: or not.
ROOMS = (
    "__main__ cli api training evaluation systems checkpoints personalization guidance diffusion encoders meshes "
    "rendering fields losses data optim metrics visualization types cameras rays archives folders tensors memory "
    "plugins option_types schema io random terminal errors provenance redaction"
).split()
#: They meet in guidance, through functions, and in systems.
APART = {
    "diffusion": {"encoders", "rendering", "fields"},
    "encoders": {"diffusion"},
    "rendering": {"diffusion"},
    "fields": {"diffusion"},
    "guidance": {"encoders", "rendering", "fields"},
}


@cache
def nodes(path: Path) -> list[ast.AST]:
    """The syntax of a file; read once, as many files make slow tests."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports(path: Path) -> Iterator[str]:
    """The full names a module imports, at its top or inside functions."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def keywords(call: ast.Call) -> dict[str, object]:
    return {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}


def code_lines(function: ast.FunctionDef) -> int:
    """Lines without the docstring, which for a command is the text of its --help."""
    first = function.body[0]
    explained = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - explained


def test_the_package_is_found():
    assert PACKAGE / "cameras.py" in FILES


def test_nothing_is_unpickled():
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, ast.Call):
                place, said = f"{path}:{node.lineno}", keywords(node)
                if ast.unparse(node.func) == "torch.load":
                    assert said.get("weights_only") is True, f"{place}: torch.load without weights_only=True"
                assert said.get("allow_pickle") is not True, f"{place}: allow_pickle=True"
                assert said.get("weights_only") is not False, f"{place}: weights_only=False"


def room(name: str) -> str:
    """The room of a module, given its full name."""
    return name.split(".")[1]


def test_imports_point_down():
    for path in FILES:
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        used = {room(name) for name in imports(path) if name.startswith("vcgen.")} - {own, "__version__"}
        allowed = {"api"} if own == "__init__" else set(ROOMS[ROOMS.index(own) + 1 :]) - APART.get(own, set())
        assert used <= allowed, f"{path} imports from {used - allowed}, which {own} may not"


def test_no_module_imports_itself_through_others():
    """Circles inside a room, lazy imports included; between rooms there are none, as imports point down."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    graph = {}
    for path, name in names.items():
        found = set(imports(path))
        graph[name] = (({*found, *(one.rpartition(".")[0] for one in found)}) & set(names.values())) - {name, "vcgen"}
    for name, used in graph.items():
        reached, new = set(), used
        while new:
            reached |= new
            new = set().union(*(graph[one] for one in new)) - reached
        assert name not in reached, f"{name} is imported by what it imports"


def test_files_and_functions_stay_small():
    for path in ALL:
        assert len(path.read_text().splitlines()) <= 300, path
        functions = [node for node in nodes(path) if isinstance(node, ast.FunctionDef)]
        assert [f.name for f in functions if code_lines(f) >= 50] == [], path
