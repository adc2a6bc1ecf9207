"""What we call of PyTorch's device code and of nvidia-ml-py is there, on whatever versions are installed, and takes what we give.

Most of it can't be run without a GPU; a name that was renamed would be found by the first person who has one.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
import torch

import revbench
from revbench.probes.nvml import Nvml

PACKAGE = Path(revbench.__file__).parent
FAMILIES = (
    "torch.cuda",
    "torch._C",
    "torch.backends",
    "torch.version",
    "torch.distributed",
    "torch.accelerator",
    "torch.compiler",
)
# Names that PyTorch has from a version on; the code that uses them asks first.
FROM = {
    "torch.compiler._is_exporting_flag": (2, 7),
    "torch._C._get_fp32_precision_getter": (2, 9),
    "torch._C._set_fp32_precision_setter": (2, 9),
    "torch._C._autograd._top_saved_tensors_default_hooks": (2, 7),
    "torch._C._cuda_getDeviceCount": None,  # in builds with CUDA alone
    "torch.cuda.set_per_process_memory_fraction": (2, 0),
}
VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])


Names = dict[str, str]


def dotted(node: ast.AST, aliases: Names) -> str | None:
    """``torch.cuda.synchronize`` of the expression that says so, also by another name of a part of it."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := dotted(node.value, aliases)) is not None:
        return f"{base}.{node.attr}"
    return None


def aliases_of(tree: ast.Module) -> Names:
    """What ``import torch.distributed as dist`` and ``_cudnn = torch.backends.cudnn`` call by other names."""
    found: Names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            name = dotted(node.value, {})
            if name is not None and name.startswith("torch.") and isinstance(targets[0], ast.Name):
                found[targets[0].id] = name
    return found


def named() -> dict[str, list[ast.Call | None]]:
    """Every name of these families in the package, with the calls of it."""
    found: dict[str, list[ast.Call | None]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        aliases = aliases_of(tree)
        inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                name = dotted(node, aliases)
                if name is not None and name.startswith(tuple(f"{family}." for family in FAMILIES)):
                    found.setdefault(name, []).append(calls.get(id(node)))
        for name in imported(tree):
            found.setdefault(name, []).append(None)
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """What is imported by name out of PyTorch's own modules that begin with an underscore, or of these families."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            private = any(part.startswith("_") for part in node.module.split(".")[1:])
            if node.module.startswith("torch") and (private or node.module.startswith(FAMILIES)):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


NAMED = named()


def there(name: str) -> Any:
    """The object of a dotted name, whose modules are imported as far as they are modules."""
    parts = name.split(".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading a setting by its older name
        for count in range(len(parts) - 1, 0, -1):
            try:
                found = __import__(".".join(parts[:count]), fromlist=["_"])
            except ImportError:
                continue
            return functools.reduce(getattr, parts[count:], found)
    raise ImportError(name)


def test_the_search_finds_what_it_looks_for() -> None:
    assert {"torch.cuda.synchronize", "torch.backends.cudnn.benchmark", "torch._C._storage_Use_Count"} <= set(NAMED)
    assert "torch._C._profiler._EventType" in NAMED
    assert {"torch.distributed.init_process_group", "torch.backends.cudnn.allow_tf32"} <= set(NAMED)
    assert set(FROM) <= set(NAMED)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_a_name_is_there_and_takes_what_we_give(name: str) -> None:
    since = FROM.get(name, (0, 0))
    if since is None and torch.version.cuda is None:
        pytest.skip("of builds with CUDA")
    if since is not None and since > VERSION:
        pytest.skip(f"of PyTorch {since[0]}.{since[1]} and later")
    found = there(name)
    for call in NAMED[name]:
        if call is not None:
            check_call(found, call.args, [keyword.arg for keyword in call.keywords], name)


def check_call(function: Any, positional: list[ast.expr], keywords: list[str | None], name: str) -> None:
    """Raise `TypeError` if the function can't be called with so many arguments and these keywords."""
    assert callable(function), name
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # written in C++
        return
    if any(isinstance(argument, ast.Starred) for argument in positional) or None in keywords:
        return
    signature.bind(*positional, **dict.fromkeys([word for word in keywords if word is not None]))


def test_a_call_that_does_not_fit_is_found() -> None:
    def function(device: int, *, stream: object = None) -> None: ...

    (call,) = (node for node in ast.walk(ast.parse("function(0, strem=1)")) if isinstance(node, ast.Call))
    with pytest.raises(TypeError, match="unexpected keyword argument 'strem'"):
        check_call(function, call.args, [keyword.arg for keyword in call.keywords], "function")


OF_NVML = sorted(name for name in {**vars(Nvml), **Nvml.__annotations__} if name.startswith(("nvml", "NVML")))


@pytest.mark.parametrize("name", OF_NVML)
def test_nvidia_ml_py_has_what_we_call(name: str) -> None:
    found = getattr(pynvml, name)
    ours = getattr(Nvml, name, None)
    if ours is not None:
        parameters = [p for p in inspect.signature(ours).parameters if p != "self"]
        keywords = {p: None for p in parameters if p == "version"}
        inspect.signature(found).bind(*(p for p in parameters if p not in keywords), **keywords)


def test_nothing_else_of_nvidia_ml_py_is_called() -> None:
    """What a stub answers and what the protocol lists is all that there is."""
    used = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = (
                node.attr if isinstance(node, ast.Attribute) else node.value if isinstance(node, ast.Constant) else None
            )
            if isinstance(name, str) and re.fullmatch(r"(nvml[A-Z]|NVML)\w+", name):
                used.add(name)
    assert used == set(OF_NVML)
    stub = (Path(__file__).parent / "probes" / "stub_nvml.c").read_text()
    functions = {name for name in OF_NVML if callable(getattr(pynvml, name)) and name.startswith("nvmlDevice")}
    assert all(f" {name}" in stub for name in functions)
