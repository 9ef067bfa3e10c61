"""The shape of the code, checked by tools: imports go one way, decisions are pure, modules stay readable.

The contracts about imports are in `.importlinter`; what they can't say is here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAM = REPOSITORY / "pipeline"
MODULES = sorted(PROGRAM.rglob("*.py"))
MAX_LINES = 450
# What is longer than this needs a docstring; a short one that says nothing new is left out.
FUNCTION_LINES_WITHOUT_WORDS = 25
CLASS_LINES_WITHOUT_WORDS = 11
TOLD_BY_THEIR_MODULE = {"pool/retry.py: Retry"}

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name_of(module: Path) -> str:
    return str(module.relative_to(PROGRAM))


def public_definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """The functions and classes of a module, and the methods of its public classes."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def length(node: Definition) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


@cache
def parse(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def test_imports_go_one_way() -> None:
    """The rooms of the house, as `.importlinter` has them."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_fits_into_one_head(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_says_what_it_is_for(module: Path) -> None:
    tree = parse(module)
    assert ast.get_docstring(tree) or not tree.body
    silent = [
        f"{name_of(module)}: {node.name}"
        for node in public_definitions(tree.body)
        if not ast.get_docstring(node)
        and length(node)
        > (CLASS_LINES_WITHOUT_WORDS if isinstance(node, ast.ClassDef) else FUNCTION_LINES_WITHOUT_WORDS)
    ]
    assert set(silent) <= TOLD_BY_THEIR_MODULE


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_everything_is_typed(module: Path) -> None:
    """Every public function says what it takes and gives (mypy checks that it is so)."""
    for node in public_definitions(parse(module).body):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert node.returns is not None, node.name
            assert not untyped, node.name


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_only_the_user_interface_prints(module: Path) -> None:
    if (PROGRAM / "ui") in module.parents:
        return
    called = [node.func for node in ast.walk(parse(module)) if isinstance(node, ast.Call)]
    assert not [f for f in called if isinstance(f, ast.Name) and f.id in ("print", "input", "breakpoint")]
    names = [node for node in ast.walk(parse(module)) if isinstance(node, ast.Attribute)]
    assert not [n for n in names if ast.unparse(n) in ("sys.stdout", "sys.stderr")]


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_no_error_is_swallowed_unnamed(module: Path) -> None:
    """`except:` and `except BaseException` without raising again would swallow Ctrl-C."""
    for node in ast.walk(parse(module)):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or ast.unparse(node.type) == "BaseException"
        ):
            assert any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), node.lineno
