"""Every file is small, says what it is for, and holds nothing that the house forbids."""

from __future__ import annotations

import ast
import re

from tests.contracts.sources import ROOT, imported_names, sources

FOLDERS = tuple(f for f in ("engines", "server", "post_train", "enhancer", "kernels") if (ROOT / f).is_dir())
MAX_FILE, MAX_KERNEL_FILE, MAX_FUNCTION, MAX_KERNEL = 400, 500, 60, 100
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib"}
FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc)(_|$)")
# The walls behind which any error may be caught: the request handler, the worker child, the webhook sender.
WALLS = {"server/api/wall.py", "server/webhooks/sender.py", "server/worker/film_maker.py"}


def _functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def _is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(ast.unparse(decorator).startswith("triton.jit") for decorator in function.decorator_list)


def test_files_are_small_and_say_what_they_are_for() -> None:
    """At most 400 lines (a kernel 500), and a docstring that begins on the first line; empty files need none."""
    for source in sources(*FOLDERS):
        lines = source.text.count("\n")
        assert lines <= (MAX_KERNEL_FILE if source.floor == "kernels" else MAX_FILE), f"{source.path}: {lines} lines"
        if source.text.strip():
            assert source.text.startswith('"""'), f"{source.path} has no docstring on its first line"


def test_functions_fit_on_a_screen() -> None:
    """No function over 60 lines, a kernel with a line for each of its parameters over 100; half of all within ten."""
    lengths = []
    for source in sources(*FOLDERS):
        for function in _functions(source.tree):
            assert function.end_lineno is not None
            length = function.end_lineno - function.lineno + 1
            lengths.append(length)
            most = MAX_KERNEL if _is_kernel(function) else MAX_FUNCTION
            assert length <= most, f"{source.path}: {function.name} has {length} lines"
    assert sorted(lengths)[len(lengths) // 2] <= 10


def test_every_function_is_annotated() -> None:
    """Arguments and results, but for self and cls, and for Triton's kernels, which are called with pointers."""
    for source in sources(*FOLDERS):
        for function in (f for f in _functions(source.tree) if not _is_kernel(f)):
            arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in {"self", "cls"}]
            assert not bare, f"{source.path}: {function.name} leaves {bare} without a type"
            assert function.returns is not None, f"{source.path}: {function.name} names no result"


def test_nothing_is_unpickled() -> None:
    """No pickle in any dress, no torch.load, no numpy.load with objects, no eval or exec of text."""
    for source in sources(*FOLDERS):
        for module, _ in imported_names(source.tree):
            assert module.split(".")[0] not in FORBIDDEN_MODULES, f"{source.path} imports {module}"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"torch.load", "torch.save", "eval", "exec"}, f"{source.path} calls {called}"
                trusted = [k for k in node.keywords if k.arg in {"allow_pickle", "trust_remote_code"}]
                assert all(ast.unparse(k.value) == "False" for k in trusted), f"{source.path} trusts code in {called}"


def test_errors_are_caught_by_name() -> None:
    """`except Exception` and bare handlers stand behind the named walls only."""
    for source in sources(*FOLDERS):
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "everything" if node.type is None else ast.unparse(node.type)
                broad = caught in {"everything", "Exception", "BaseException"}
                assert not broad or str(source.path) in WALLS, f"{source.path}:{node.lineno} catches {caught}"


def test_names_tell_what_a_thing_is() -> None:
    """No file, class or function is a util, helper, manager or misc."""
    for source in sources(*FOLDERS):
        assert not FORBIDDEN_NAMES.search(source.path.stem), source.path
        for node in ast.walk(source.tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name).lower()
                assert not FORBIDDEN_NAMES.search(snake), f"{source.path}: {node.name}"


def test_every_test_states_a_promise() -> None:
    """Tests have a docstring."""
    for source in sources("tests"):
        for function in _functions(source.tree):
            if function.name.startswith("test_"):
                assert ast.get_docstring(function), f"{source.path}: {function.name}"


def test_weights_are_safetensors_and_small() -> None:
    """All weights in the repository together stay under 150 MB, and none is a pickle."""
    suffixes = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
    found = (p for folder in FOLDERS for p in (ROOT / folder).rglob("*"))
    files = [p for p in found if p.is_file() and "__pycache__" not in p.parts]
    assert not [p for p in files if p.suffix in suffixes]
    assert sum(p.stat().st_size for p in files if p.suffix == ".safetensors") < 150e6
