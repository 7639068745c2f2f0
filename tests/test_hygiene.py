"""Rules of the house that the linter does not know: nothing loaded is code, imports point one way, files stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports(tree: ast.Module) -> Iterator[str]:
    """The full names a module imports, at its top or inside functions."""
    for node in ast.walk(tree):
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


@every_file
def test_nothing_is_unpickled(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert keywords(node).get("weights_only") is True, (
                f"line {node.lineno}: torch.load without weights_only=True"
            )
        if isinstance(node, ast.Call):
            assert keywords(node).get("allow_pickle") is not True, f"line {node.lineno}: allow_pickle=True"
            assert keywords(node).get("weights_only") is not False, f"line {node.lineno}: weights_only=False"


def room(name: str) -> str:
    """The room of a module, given its full name."""
    return name.split(".")[1]


@every_file
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    used = {room(name) for name in imports(ast.parse(path.read_text())) if name.startswith("vcgen.")} - {
        own,
        "__version__",
    }
    if own == "__init__":
        assert used <= {"api"}
        return
    assert used <= set(ROOMS[ROOMS.index(own) + 1 :]), f"{own} lies above {ROOMS[ROOMS.index(own) + 1 :]} alone"
    assert not used & APART.get(own, set())


def test_no_module_imports_itself_through_others():
    """Circles inside a room, lazy imports included; between rooms there are none, as imports point down."""
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES}
    graph = {}
    for path, name in names.items():
        found = set(imports(ast.parse(path.read_text())))
        graph[name] = (({*found, *(one.rpartition(".")[0] for one in found)}) & set(names.values())) - {name, "vcgen"}
    for name, used in graph.items():
        reached, new = set(), used
        while new:
            reached |= new
            new = set().union(*(graph[one] for one in new)) - reached
        assert name not in reached, f"{name} is imported by what it imports"


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if code_lines(f) >= 50] == []
