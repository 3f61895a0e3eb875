"""A floor of the house imports only from its own floor and from lower ones, and no modules import each other in a circle."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import nbnet
from nbnet.kernels import OPERATIONS

PACKAGE = Path(nbnet.__file__).parent
# Where a module belongs; a package stands for all in it. The first set is free to all.
FLOORS = [
    {"errors", "version", "storage", "schema", "progress", "code_repr", "hints"},
    {"kernels"},
    {"runtime"},
    {"functional"},
    {
        "augment",
        "layers",
        "losses",
        "metrics",
        "optimizers",
        "schedules",
        "initializers",
        "preprocessing",
        "regularizers",
        "scaler",
        "datasets",
    },
    {"plots", "training", "distributed"},
    {"models", "batchnorm_tools", "convert", "folding", "inference", "cs231n", "lr_range", "onnx", "sklearn"},
    {"__init__"},  # the public names: the commands and demonstrations above may use them, as anyone may
    {"cli", "__main__", "demos", "bench"},
]
FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {".".join(("nbnet", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path for path in FILES}
modules = pytest.mark.parametrize("module", NAMES)


def floor(module):
    top = module.split(".")[1] if "." in module else "__init__"
    for number, names in enumerate(FLOORS):
        if top in names:
            return number
    return pytest.fail(f"module nbnet.{top} has no floor: add it to FLOORS in tests/test_floors.py and to section 1 of the design")


def imported(tree, module, is_package):
    """Full names of all that a module imports, anywhere in it: `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            yield from (f"{source}.{alias.name}" for alias in node.names)


class WithoutTypeChecking(ast.NodeTransformer):
    """Leaves out what only a type checker imports."""

    def visit_If(self, node):
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING") else node


def imports_of(module, types=True):
    tree = ast.parse(NAMES[module].read_text(encoding="utf-8"))
    return set(imported(tree if types else WithoutTypeChecking().visit(tree), module, NAMES[module].name == "__init__.py"))


def inside(module, types=True):
    """The modules of nbnet that a module imports: a.b where that is a module, else a, which defines b."""
    names = {name for name in imports_of(module, types) if name.split(".")[0] == "nbnet"}
    return {name if name in NAMES else name.rpartition(".")[0] for name in names}


@modules
def test_imports_only_its_own_floor_and_lower_ones(module):
    for target in inside(module):
        assert target in NAMES, f"{module} imports {target}, which does not exist"
        assert floor(target) <= floor(module), f"{module} (floor {floor(module) - 1}) imports {target} (floor {floor(target) - 1})"


def test_no_import_cycles():
    graph = {module: inside(module, types=False) - {module} for module in NAMES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("import cycle: " + " <- ".join(error.args[1]))


@modules
def test_only_cuda_rooms_import_cuda(module):
    path = NAMES[module].relative_to(PACKAGE).as_posix()
    if Path(path).match("kernels/*/cuda*.py") or path.startswith("kernels/gpu/") or path == "runtime/backend.py":
        return
    found = {name for name in imports_of(module) if name.startswith(("numba.cuda", "numba_cuda"))}
    assert not found, f"{path} imports {found}: only cuda*.py, kernels/gpu/ and runtime/backend.py may"


def room_of(module):
    """The folder of a module of the kernels, or its own name where it is a neutral module directly in kernels/."""
    return module.split(".")[2] if module.startswith("nbnet.kernels.") else None


def borrowed(module, targets):
    """Modules among `targets` that a module of the kernels must not import."""
    room = room_of(module)
    if room is None:
        return set()
    toolkits = {"cpu": {"gpu", *OPERATIONS}, "gpu": set(OPERATIONS)}
    refused = toolkits.get(room, set(OPERATIONS) if room in OPERATIONS else {"cpu", "gpu", *OPERATIONS}) - {room}
    return {target for target in targets if room_of(target) in refused}


@modules
def test_an_operation_imports_only_the_toolkits(module):
    found = borrowed(module, inside(module))
    assert not found, f"{module} imports {sorted(found)}: move what operations share to nbnet.kernels.cpu or nbnet.kernels.gpu"


def test_what_the_toolkits_and_operations_may_import():
    targets = {f"nbnet.kernels.{name}" for name in ("pool.cpu", "dense", "cpu.gemm", "gpu.launch", "chunks")}
    other_operations = {"nbnet.kernels.pool.cpu", "nbnet.kernels.dense"}
    assert borrowed("nbnet.kernels.conv2d.cpu", targets) == other_operations
    assert borrowed("nbnet.kernels.dense.cpu", targets) == {"nbnet.kernels.pool.cpu"}
    assert borrowed("nbnet.kernels.cpu.gemm", targets) == {*other_operations, "nbnet.kernels.gpu.launch"}
    assert borrowed("nbnet.kernels.gpu.launch", targets) == other_operations
    assert borrowed("nbnet.kernels.chunks", targets) == targets - {"nbnet.kernels.chunks"}


def test_importing_nbnet_is_light():
    """No framework, no plotting, no download tool, no CUDA, and no kernel compiled."""
    heavy = ["torch", "tensorflow", "keras", "jax", "h5py", "matplotlib", "pooch", "numba.cuda", "numba_cuda", "onnx", "sklearn"]
    code = f"""
import sys
import nbnet
print([name for name in {heavy} if name in sys.modules])
from numba.core.dispatcher import Dispatcher
print([f for m in list(sys.modules.values()) if m and m.__name__.startswith("nbnet")
       for f, v in vars(m).items() if isinstance(v, Dispatcher) and v.signatures])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_the_rules_are_read_from_real_imports():
    """The reader of imports itself: every form, at any depth."""
    source = """
import numpy as np, nbnet.layers.base
from nbnet import functional as F, errors
def f():
    from ..kernels.pool import cpu
    from . import checks
if TYPE_CHECKING:
    from numba import cuda
"""
    found = {"numpy", "nbnet.layers.base", "nbnet.functional", "nbnet.errors", "nbnet.kernels.pool.cpu", "nbnet.functional.checks"}
    tree = ast.parse(source)
    assert set(imported(tree, "nbnet.functional.pool", False)) == {*found, "numba.cuda"}
    assert set(imported(WithoutTypeChecking().visit(tree), "nbnet.functional.pool", False)) == found
    assert set(imported(ast.parse("from . import checks"), "nbnet.functional", True)) == {"nbnet.functional.checks"}
