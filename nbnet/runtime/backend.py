"""A backend makes arrays, recycles their memory and finds kernels. There is no global default: each is asked for by name."""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from nbnet.errors import BackendError, DTypeError, unknown
from nbnet.kernels import BACKENDS, load
from nbnet.kernels.channelwise import LARGEST
from nbnet.kernels.cpu import threads
from nbnet.kernels.cpu.channelwise import compiled
from nbnet.runtime.memory import Pool, Scratch

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def on_device(array: Any) -> bool:
    """Whether an array is on the GPU. NumPy has no part in such an array; np.asarray copies it."""
    return getattr(type(array), "on_device", False)


def zeros_like(array: Any) -> Any:
    """A long-lived array of zeros beside another one."""
    zeros = array.copy()
    zeros[...] = 0
    return zeros


class Backend:
    """One way to run kernels: `numpy` (the readable definition), `serial` or `parallel` (Numba), or `cuda` (see CudaBackend).

    Get one with `get_backend(name)`; it is the same object each time, so that all models share its memory pool.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pool: Any = Pool()
        self._scratch = Scratch(self.pool)
        self._no_bias: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"Backend({self.name!r})"

    @property
    def threads(self) -> int:
        """How many threads a kernel may run on at most: kernels that need scratch for each take so much of it."""
        return threads.LIMIT if self.name == "parallel" else 1

    def kernel(self, op: str) -> Callable[..., Any]:
        """The kernel of an operation, for example kernel("conv2d.forward")."""
        if self.name == "parallel":
            threads.start()
        return load(op, self.name)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An uninitialised array, on recycled memory."""
        return self.pool.empty(shape, dtype)

    def vectors(self, count: int, size: int, dtype: Any) -> list[Any]:
        """So many uninitialised arrays (size,), in one piece of memory where that is quicker."""
        return list(np.empty((count, size), dtype))

    def on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array on the host, on recycled memory: where a batch is put together."""
        return self.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        array = self.empty(shape, dtype)
        self.run(operator.setitem, array, ..., 0)
        return array

    def no_bias(self, size: int, dtype: Any) -> Any:
        """So many zeros, for kernels that want a bias where there is none. Nobody writes into them."""
        key = size, np.dtype(dtype)
        if key not in self._no_bias:
            self._no_bias[key] = self.zeros((size,), dtype)
        return self._no_bias[key]

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that writes into its arguments. All that layers do between kernels goes through here, so that a pass can be
        recorded (nbnet.runtime.replay)."""
        function(*args)

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """What a kernel of the CPU takes as scratch, good until the next of this purpose is asked for. The kernels of `cuda` take their
        own, of other sizes, and ignore it: None."""
        return self._scratch.array(purpose, shape, dtype)

    def place(self, array: Any) -> Any:
        """An array where this backend's kernels read it, C-contiguous: itself, if it is there already.

        Raises:
            BackendError: it is on the GPU, and this backend is not.
        """
        if type(array) is not np.ndarray and on_device(array):
            raise BackendError(
                f"an array is on the GPU, but the backend is {self.name!r}: use backend='cuda', or copy it: np.asarray(array)"
            )
        return np.ascontiguousarray(array)

    def host(self, *arrays: Any) -> list[np.ndarray]:
        """The arrays on the host: themselves, or copies, after all that was launched before them is done."""
        return list(arrays)

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        """Arithmetic on C numbers, number by number: outputs[i][c] = function(args[0][c], args[1][c], ...)[i].

        Args:
            function: of numbers, returning a tuple of them, by operators alone, so that it runs on arrays and within a GPU kernel.
                Where the outputs are on the host, as counters always are, so is the arithmetic.
            outputs: arrays (C,), each of its own dtype; they may be among the args.
            args: arrays (C,), or numbers for all channels.
            clamp: values beyond the largest number of an output's dtype become that number: 0 times it is 0, and not NaN.
        """
        if self.name != "numpy":
            self.run(compiled(function, len(outputs), tuple([isinstance(arg, np.ndarray) for arg in args]), clamp), *outputs, *args)
            return
        for output, values in zip(outputs, function(*args)):
            if clamp and output.dtype == np.float32:
                values = np.maximum(np.minimum(values, LARGEST), -LARGEST)  # as np.clip, in half the time
            output[...] = values

    def synchronize(self) -> None:
        """Wait until all that was launched is done; a CPU is done when a call returns."""


class CudaBackend(Backend):
    """The GPU: arrays are nbnet.kernels.gpu.device.DeviceArray, and calls return before their work is done."""

    def __init__(self) -> None:
        from nbnet.kernels.gpu import device

        self.name = "cuda"
        self.device = device
        self.pool = device.pool()
        self._host_pool = Pool()
        self._channelwise: dict[Any, Any] = {}
        self._no_bias = {}

    def vectors(self, count: int, size: int, dtype: Any) -> list[Any]:
        return [self.empty((size,), dtype) for _ in range(count)]

    def on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._host_pool.empty(shape, dtype)

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> None:
        return None

    def place(self, array: Any) -> Any:
        return array if on_device(array) else self.device.to_device(np.ascontiguousarray(array))

    def host(self, *arrays: Any) -> list[np.ndarray]:
        copies = iter(self.device.to_host_all([array for array in arrays if on_device(array)]))
        return [next(copies) if on_device(array) else array for array in arrays]

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        from nbnet.kernels.gpu import compile, launch

        if not on_device(outputs[0]):
            super().channelwise(function, outputs, *args, clamp=clamp)
            return
        arrays = tuple(on_device(arg) or np.ndim(arg) > 0 for arg in args)
        key = function, arrays, clamp
        if key not in self._channelwise:
            self._channelwise[key] = compile.channelwise(function, len(outputs), arrays, clamp)
        placed = [
            self.place(np.asarray(arg, np.float64) if not on_device(arg) else arg) if is_array else float(arg)
            for arg, is_array in zip(args, arrays)
        ]
        size = outputs[0].size
        launch.run(self._channelwise[key], -(-size // launch.THREADS), launch.THREADS, size, *outputs, *placed)

    def synchronize(self) -> None:
        self.device.synchronize()


@cache
def _make(name: str) -> Backend:
    if name != "cuda":
        return Backend(name)
    check_cuda()
    return CudaBackend()


def get_backend(backend: str | Backend) -> Backend:
    """The backend of that name.

    Raises:
        BackendError: there is no such backend, or it cannot run here.
    """
    if isinstance(backend, Backend):
        return backend
    if backend not in BACKENDS:
        raise BackendError(unknown("backend", backend, BACKENDS))
    return _make(backend)


def check_cuda() -> str:
    """The GPU that backend cuda would use, in words: its name, compute capability, memory and driver.

    Raises:
        BackendError: there is no numba-cuda, no driver or no GPU, or the driver is too old for the CUDA toolkit that is installed.
    """
    instead = "or use 'parallel', 'serial' or 'numpy'"
    if importlib.util.find_spec("numba_cuda") is None:
        raise BackendError(f"backend 'cuda' needs numba-cuda: pip install 'nbnet[cuda]', {instead}")
    from numba import cuda
    from numba.cuda.core import config

    if config.ENABLE_CUDASIM:
        return "Numba's simulator (NUMBA_ENABLE_CUDASIM=1): for tests, thousands of times slower than a GPU"
    try:
        driver: tuple[int, int] = cuda.cudadrv.driver.get_version()  # type: ignore[attr-defined]
        gpus = len(cuda.gpus)
    except Exception as error:
        reason = " ".join(str(error).replace("Error at driver init:", "").split()).partition(". ")[0]
        raise BackendError(f"backend 'cuda' found no NVIDIA driver ({reason}): install one, {instead}") from error
    toolkit = cuda.runtime.get_version()
    if driver[0] < toolkit[0]:
        raise BackendError(
            f"the NVIDIA driver knows CUDA {driver[0]}.{driver[1]}, but the toolkit installed is {toolkit[0]}.{toolkit[1]}: "
            f"update the driver, or pip install 'numba-cuda[cu{driver[0]}]', {instead}"
        )
    if gpus == 0:
        raise BackendError(f"backend 'cuda' found a driver but no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES, {instead}")
    gpu = cuda.get_current_device()
    _, memory = cuda.current_context().get_memory_info()
    name = gpu.name.decode() if isinstance(gpu.name, bytes) else gpu.name
    major, minor = gpu.compute_capability
    return (
        f"{name}, compute capability {major}.{minor}, {memory / 2**30:.1f} GiB; driver for CUDA {driver[0]}.{driver[1]}, "
        f"toolkit {toolkit[0]}.{toolkit[1]}"
    )


def float_dtype(dtype: Any) -> np.dtype:
    """The dtype, if nbnet computes in it.

    Raises:
        DTypeError: it is neither float32 nor float64.
    """
    try:
        wanted = np.dtype(dtype)
    except TypeError:
        wanted = None
    if wanted not in FLOATS:
        raise DTypeError(f"dtype {dtype!r}: nbnet computes in 'float32' or 'float64'")
    return wanted
