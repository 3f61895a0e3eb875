"""A backend makes arrays, recycles their memory and finds kernels. There is no global default: every call names its backend."""

from __future__ import annotations

import copyreg
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from nbnet.errors import BackendError, unknown
from nbnet.kernels import BACKENDS, check_compiler, load
from nbnet.kernels.channelwise import LARGEST
from nbnet.kernels.cpu import threads
from nbnet.kernels.cpu.channelwise import compiled
from nbnet.runtime.arrays import each, for_kernels, on_device, to_float
from nbnet.runtime.memory import Pool, Scratch


class Backend(Protocol):
    """What layers and functional calls need of a backend. `get_backend(name)` returns the one of that name, always the same object.

    Attributes:
        name: "numpy" (the readable definition), "serial" or "parallel" (Numba on the CPU), or "cuda".
        threads: how many threads a kernel may use at most; kernels take scratch for each.
        pool: where `empty` takes its memory from (nbnet.runtime.memory).
    """

    name: str
    threads: int
    pool: Any

    def kernel(self, op: str) -> Callable[..., Any]:
        """The kernel of an operation, for example kernel("conv2d.forward")."""

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function that writes into its arguments. Everything that replayable layers do between kernels goes through here, so
        that a pass can be recorded (nbnet.runtime.replay)."""

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An uninitialised array on recycled memory."""

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array of zeros on recycled memory."""

    def vectors(self, count: int, size: int, dtype: Any) -> list[Any]:
        """`count` uninitialised arrays (size,), from one piece of memory where that is faster."""

    def no_bias(self, size: int, dtype: Any) -> Any:
        """Zeros (size,), read only, for a kernel that takes a bias where a layer has none."""

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Scratch of a CPU kernel, valid until the next call with this purpose. None on `cuda`, whose kernels take their own."""

    def on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array on the host, on recycled memory: where a batch is put together."""

    def upload(self, batches: Iterable[Any], dtype: Any) -> Iterator[Any]:
        """The batches, arrays or tuples of them, one by one, where models of this dtype read them."""

    def place(self, array: Any) -> Any:
        """An array where kernels read it, as they take it (see `for_kernels`): the same array if it is there already.

        Raises:
            BackendError: it is on the GPU, and this backend is not.
        """

    def host(self, *arrays: Any) -> list[np.ndarray]:
        """The arrays on the host: the same arrays, or copies, once everything launched before is done."""

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        """Arithmetic on C numbers, element by element: outputs[i][c] = function(args[0][c], args[1][c], ...)[i].

        Args:
            function: takes numbers and returns a tuple of numbers, by operators alone, so that it runs on arrays and in a GPU kernel.
            outputs: arrays (C,), each of its own dtype; they may be among the args. If they are on the host, so is the arithmetic.
            args: arrays (C,), or numbers for all channels.
            clamp: results beyond the largest number of an output's dtype become that number, so that 0 times it is 0 and not NaN.
        """

    def synchronize(self) -> None:
        """Wait until everything launched is done."""

    def empty_cache(self) -> None:
        """Return memory that is kept for later arrays to the system."""


class NumpyBackend:
    """The readable definition of every operation, in NumPy; what all CPU backends share."""

    name = "numpy"
    threads = 1

    def __init__(self) -> None:
        self.pool: Any = Pool()
        self._scratch = Scratch(self.pool)
        self._no_bias: dict[Any, Any] = {}

    def __repr__(self) -> str:
        return f"nb.get_backend({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy of a backend is that backend; a pickle names it."""
        if type(self) is not _CLASSES.get(self.name):
            raise BackendError(f"{type(self).__name__} is not a backend of nbnet, which pickle by name: define __reduce__ in it")
        return get_backend, (self.name,)

    def kernel(self, op: str) -> Callable[..., Any]:
        return load(op, self.name)

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        function(*args)

    def empty(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        return self.pool.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def vectors(self, count: int, size: int, dtype: Any) -> list[Any]:
        return list(np.empty((count, size), dtype))

    def no_bias(self, size: int, dtype: Any) -> Any:
        key = size, np.dtype(dtype)
        if key not in self._no_bias:
            self._no_bias[key] = self.zeros((size,), dtype)
        return self._no_bias[key]

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._scratch.array(purpose, shape, dtype)

    def on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self.empty(shape, dtype)

    def upload(self, batches: Iterable[Any], dtype: Any) -> Iterator[Any]:
        return iter(batches)

    def place(self, array: Any) -> Any:
        if type(array) is np.ndarray:
            return array if array.flags.carray else for_kernels(array)
        if on_device(array):
            raise BackendError(
                f"an array is on the GPU, but the backend is {self.name!r}: use backend='cuda', or copy it: np.asarray(array)"
            )
        return for_kernels(array)

    def host(self, *arrays: Any) -> list[np.ndarray]:
        return list(arrays)

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        for output, values in zip(outputs, function(*args)):
            if clamp and output.dtype == np.float32:
                values = np.maximum(np.minimum(values, LARGEST), -LARGEST)  # np.clip takes twice as long
            output[...] = values

    def synchronize(self) -> None:
        """Nothing to wait for: a call on the CPU is done when it returns."""

    def empty_cache(self) -> None:
        self._scratch.clear()
        self.pool.clear()


class SerialBackend(NumpyBackend):
    """Numba kernels on the caller's thread."""

    name = "serial"

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        channelwise_kernel(function, outputs, args, clamp)(*outputs, *args)


class ParallelBackend(SerialBackend):
    """Numba kernels on the threads of nbnet (nbnet.kernels.cpu.threads), with the bits of `serial`."""

    name = "parallel"
    threads = threads.LIMIT

    def kernel(self, op: str) -> Callable[..., Any]:
        threads.start()
        return load(op, self.name)


class CudaBackend(SerialBackend):
    """The GPU: arrays are nbnet.kernels.gpu.device.DeviceArray, and calls return before their work is done."""

    name = "cuda"

    def __init__(self) -> None:
        from nbnet.kernels.gpu import device

        super().__init__()
        self.device = device
        copyreg.pickle(device.DeviceArray, _through_host)
        self._host_pool, self.pool = self.pool, device.pool()
        self._channelwise: dict[Any, Any] = {}

    def vectors(self, count: int, size: int, dtype: Any) -> list[Any]:
        return [self.empty((size,), dtype) for _ in range(count)]

    def on_host(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return self._host_pool.empty(shape, dtype)

    def upload(self, batches: Iterable[Any], dtype: Any) -> Iterator[Any]:
        """The batches on the GPU; each is copied there while the caller computes with the one before it."""
        coming = None
        for batch in batches:
            following = each(lambda part: self._upload(part, dtype), batch)
            if coming is not None:
                yield each(self.device.Upload.arrived, coming)
            coming = following
        if coming is not None:
            yield each(self.device.Upload.arrived, coming)

    def _upload(self, array: np.ndarray, dtype: Any) -> Any:
        if array.dtype == np.uint8:
            array = to_float(array, self.on_host(array.shape, dtype))
        return self.device.Upload(array)

    def run(self, function: Callable[..., Any], *args: Any) -> None:
        recording = self.device.launches.active()
        if recording is not None and not recording.in_section and not any(map(on_device, args)):
            recording.compute_on_host(function, *args)
        else:
            function(*args)

    def scratch(self, purpose: str, shape: tuple[int, ...], dtype: Any) -> None:
        return None

    def place(self, array: Any) -> Any:
        return array if on_device(array) else self.device.to_device(np.ascontiguousarray(array))

    def host(self, *arrays: Any) -> list[np.ndarray]:
        copies = iter(self.device.to_host_all([array for array in arrays if on_device(array)]))
        return [next(copies) if on_device(array) else array for array in arrays]

    def gate(self) -> Any:
        """A new gate of a training step (nbnet.kernels.gpu.gate)."""
        from nbnet.kernels.gpu.gate import Gate

        return Gate()

    def clip(self, arrays: Sequence[Any], limit: float) -> None:
        """Scale flat arrays so that their global L2 norm is at most `limit`; the host does not wait for the norm."""
        from nbnet.kernels.gpu.clipping import clip

        clip(arrays, limit, self.kernel("array.squares"))

    def channelwise(self, function: Callable[..., tuple], outputs: Sequence[Any], *args: Any, clamp: bool = False) -> None:
        from nbnet.kernels.gpu import launch, launches
        from nbnet.kernels.gpu.compile import channelwise

        if not on_device(outputs[0]):
            if (recording := launches.active()) is not None and not recording.in_section:
                recording.compute_on_host(channelwise_kernel(function, outputs, args, clamp), *outputs, *args)
            else:
                super().channelwise(function, outputs, *args, clamp=clamp)
            return
        arrays = tuple(on_device(arg) or np.ndim(arg) > 0 for arg in args)
        key = function, arrays, clamp
        if key not in self._channelwise:
            self._channelwise[key] = channelwise(function, len(outputs), arrays, clamp)
        placed = [
            (arg if on_device(arg) else self.device.numbers(np.asarray(arg, np.float64))) if is_array else float(arg)
            for arg, is_array in zip(args, arrays)
        ]
        size = outputs[0].size
        launch.run(self._channelwise[key], -(-size // launch.THREADS), launch.THREADS, size, *outputs, *placed)

    def synchronize(self) -> None:
        self.device.synchronize()

    def empty_cache(self) -> None:
        super().empty_cache()
        self._host_pool.clear()


def _through_host(array: Any) -> tuple[Any, ...]:
    """How an array on the GPU is copied and pickled."""
    return _on_gpu, (np.asarray(array),)


def _on_gpu(array: np.ndarray) -> Any:
    return get_backend("cuda").place(array)


def channelwise_kernel(function: Callable[..., tuple], outputs: Sequence[Any], args: Sequence[Any], clamp: bool) -> Any:
    """The compiled loop of `Backend.channelwise` on the CPU; call it with the outputs and then the args."""
    return compiled(function, len(outputs), tuple([isinstance(arg, np.ndarray) for arg in args]), clamp)


_CLASSES: dict[str, Callable[[], Any]] = {each.name: each for each in (NumpyBackend, SerialBackend, ParallelBackend, CudaBackend)}


_made: list[Backend] = []


@cache
def _make(name: str) -> Backend:
    check_compiler(name)
    if name == "cuda":
        check_cuda()
    backend: Backend = _CLASSES[name]()
    _made.append(backend)
    return backend


def empty_cache() -> None:
    """Give the memory that nbnet keeps for later arrays back to the system, or to the GPU's driver: unused blocks of all backends, and the
    calling thread's scratch. A trainer keeps the memory of its last passes until it evaluates or is deleted."""
    for backend in _made:
        backend.empty_cache()


def get_backend(backend: str | Backend) -> Backend:
    """The backend of that name, or the backend itself.

    Raises:
        BackendError: there is no such backend, or it cannot run here.
    """
    if isinstance(backend, str) and backend in BACKENDS:
        return _make(backend)
    if not hasattr(backend, "kernel"):
        raise BackendError(unknown("backend", backend, BACKENDS))
    return backend  # type: ignore[return-value]


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
