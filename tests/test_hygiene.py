"""Rules of the house that a program can check: nothing is unpickled, imports point one way, files stay small and explained."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vcgen"
FILES = sorted(PACKAGE.rglob("*.py"))
ALL = [*FILES, *sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "tests").rglob("*.py"))]
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
#: The name of the error that torch.load raises, which unpickles nothing.
HARMLESS = "pickle.UnpicklingError"
#: What every part may import: modules that know nothing of the rest.
BASE = {"errors", "folders", "io", "levels", "redaction", "schema", "tensors", "terminal", "usage"}
#: What each part of the package may import from the rest of it, beside BASE; parts that wire the others together are not listed.
ARROWS = {
    "errors": set(),
    "redaction": set(),
    "io": set(),
    "folders": set(),
    "terminal": set(),
    "schema": set(),
    "levels": set(),
    "tensors": set(),
    "stopping": set(),
    "cameras": set(),
    "sharding": set(),
    "checkpoints": set(),
    "types": {"cameras"},
    "nerf": {"cameras", "types"},
    "rendering": {"cameras", "types"},
    "diffusion": {"cameras", "types"},
    "data": {"cameras", "types"},
    "meshes": {"cameras", "data", "rendering"},
    "callbacks": {"cameras", "types", "export", "sharding", "stopping"},
    "evaluation": {"cameras", "types", "data", "export", "checkpoints"},
    "export": {"cameras", "types", "data", "nerf", "checkpoints"},
}
#: The doors through which export and evaluation see systems: one turns a configuration into a system, one puts distillation before it.
DOORS = ("vcgen.checkpoints.build", "vcgen.systems.distillation.distilled")

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports(tree: ast.Module) -> Iterator[str]:
    """The full names a module imports, at its top or inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def keywords(call: ast.Call) -> dict[str, object]:
    return {keyword.arg: getattr(keyword.value, "value", None) for keyword in call.keywords}


def code_lines(function: ast.FunctionDef) -> int:
    """Lines without the docstring, which for a command is the text of its --help."""
    first = function.body[0]
    explained = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - explained


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods without a docstring."""
    scopes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_"))]
    for scope in scopes:
        for node in scope.body:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if named and ast.get_docstring(node) is None and not is_override(scope, node):
                yield f"{node.name} (line {node.lineno})"


def is_override(scope: ast.AST, node: ast.AST) -> bool:
    """A method of a class that has bases, whose documentation may be the base's."""
    return isinstance(scope, ast.ClassDef) and bool(scope.bases) and isinstance(node, ast.FunctionDef)


def test_the_package_is_found():
    assert PACKAGE / "cameras.py" in FILES


@every_file
def test_nothing_is_unpickled(path):
    tree = ast.parse(path.read_text())
    assert not {name.split(".")[0] for name in imports(tree) if name != HARMLESS} & PICKLING
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert keywords(node).get("weights_only") is True, f"line {node.lineno}: torch.load without weights_only=True"
        if isinstance(node, ast.Call):
            assert keywords(node).get("allow_pickle") is not True, f"line {node.lineno}: allow_pickle=True"
            assert keywords(node).get("weights_only") is not False, f"line {node.lineno}: weights_only=False"


@every_file
def test_imports_point_one_way(path):
    part = path.relative_to(PACKAGE).with_suffix("").parts[0]
    names = [name for name in imports(ast.parse(path.read_text())) if name.startswith("vcgen.")]
    used = {name.split(".")[1] for name in names if not (part in ("export", "evaluation") and name.startswith(DOORS))}
    assert used - {part, "__version__"} <= ARROWS.get(part, used) | BASE


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    assert len(path.read_text().splitlines()) <= 300
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    assert [f.name for f in functions if code_lines(f) >= 50] == []


@every_file
def test_lines_fit_140_columns(path):
    assert [number for number, line in enumerate(path.read_text().splitlines(), 1) if len(line) > 140] == []


@every_file
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    assert not path.read_text().strip() or ast.get_docstring(tree), "the module has no docstring"
    assert list(undocumented(tree)) == []
