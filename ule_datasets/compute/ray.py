"""Tasks on a Ray cluster: the one that runs already, or a private one for as long as it is needed."""

from __future__ import annotations

import functools
import io
import logging
import math
import os
import pickle
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from ule_datasets.base.errors import InputError
from ule_datasets.compute.executor import Executor, Launcher, Lost, Result, Task, available_cpus

SHARED_FROM = 2**20
"""NumPy arrays and tensors of at least so many bytes go to the object store once, not to every task."""
SECONDS_TO_END = 1.0
"""How long attempts whose outcomes nobody will use may go on, before Ray is asked to kill them."""
LONGEST_ROOT = 20
"""Characters that a folder for temporary files may have: Ray adds 80 to it for its sockets, which may have 103."""


class RayExecutor(Executor):
    """Runs tasks on a Ray cluster, at most ``workers`` at a time.

    Those of ``unordered``, and all that use GPUs, have a process of their own; those of ``map`` that do not are
    given to the same processes again and again, in which nothing of ``unordered`` ever runs.

    Entering it connects to ``address``; without one, to the cluster that this process is connected to already,
    that ``RAY_ADDRESS`` names, or that ``ray start`` started on this machine. Where there is none, or the address
    is ``local``, a private cluster is started and, on leaving, ended: without a dashboard, without usage
    statistics, its files in a folder of its own.

    Functions and tasks are pickled by cloudpickle; this package, and whatever module a function comes from, must
    be importable on the nodes, in the same versions. NumPy arrays and CPU tensors of at least ``SHARED_FROM``
    bytes anywhere in the tasks of ``unordered`` are put into the object store once, however many tasks hold the
    same object (not merely an equal one, nor another view of it), and stay there until all tasks are done; every
    task gets its own, writable copy, as a local process does.

    Paths in tasks are paths on the node that runs them. ``OMP_NUM_THREADS``, which Ray sets to the CPUs of a task,
    is what it is in this process before anything is unpickled, so that torch takes as many threads as it would here
    on such a machine; a task that must give the same bits everywhere sets them itself. A task without
    ``gpus_per_task`` sees no GPU.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        gpus_per_task: float = 0.0,
        address: str | None = None,
        object_store_bytes: int | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            workers: how many tasks at a time; ``None``: as many as the cluster has room for on entering.
            gpus_per_task: what Ray sets aside for a task: a share of one GPU, or a whole number of them.
            address: ``HOST:PORT`` of a running cluster, ``auto`` or ``local``.
            object_store_bytes: memory for arrays in a private cluster; ``None``: what Ray thinks fit.

        Raises:
            InputError: a number is out of range. On entering: Ray is not installed, no cluster answers at the
                address, or none of its nodes has room for a task.
        """
        super().__init__(workers)
        if gpus_per_task < 0 or (gpus_per_task > 1 and gpus_per_task != int(gpus_per_task)):
            raise InputError(f"gpus_per_task is {gpus_per_task:g}, must be between 0 and 1, or a whole number")
        self._gpus = gpus_per_task
        self._address = address
        self._object_store_bytes = object_store_bytes
        self._open = ExitStack()

    def __enter__(self) -> Self:
        ray = _import_ray()
        with ExitStack() as stack:
            if not ray.is_initialized():
                self._connect(ray, stack)
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            room = sum(_room(node, self._gpus) for node in nodes)
            if room == 0:
                have = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
                raise InputError(
                    f"a task takes 1 CPUs and {self._gpus:g} GPUs, more than any node of the Ray cluster has ({have})"
                )
            self._workers = self._workers or room
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            super().__exit__()

    def _launcher(self, function: Callable[[Task], Result], *, reused: bool) -> _RayLauncher[Task, Result]:
        ray = _import_ray()
        if not ray.is_initialized():
            # Ray would start a cluster of its own by itself.
            raise InputError("a RayExecutor is to be used in a 'with' statement")
        # Lost tasks are submitted again from here, not by Ray, to count them as elsewhere.
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": 0}
        if reused and self._gpus == 0:
            # Ray shares no process between environments. A library that is loaded has read this variable for good,
            # and a fresh process must not be one that has served here.
            options["runtime_env"] = {"env_vars": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "")}}
        else:
            # A fresh process for every task, which also gives its GPU memory back, and sees its own GPUs only.
            options["max_calls"] = 1
        return _RayLauncher(ray.remote(**options)(_work), function, shared=not reused)

    def _connect(self, ray: ModuleType, stack: ExitStack) -> None:
        """Connect to a running cluster or to a private one; the stack disconnects, and ends the private one."""
        address = self._address or os.environ.get("RAY_ADDRESS") or _address_of_ray_start() or "local"
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address != "local":
            try:
                if address != "auto" and not _answers(address):
                    raise ConnectionError("nothing answers there")
                ray.init(address=address, **quiet)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InputError(
                    f"no Ray cluster at {address!r}: {error}; allowed: HOST:PORT of one that runs, 'auto' for one on "
                    "this machine, 'local' for a private one"
                ) from error
            stack.callback(ray.shutdown)
            return
        folder = tempfile.TemporaryDirectory(prefix="ule-ray-", dir=_short_root(), ignore_cleanup_errors=True)
        stack.enter_context(folder)
        # Also when the start fails half-way.
        stack.callback(ray.shutdown)
        with _environment(_for_private_cluster()):
            ray.init(
                address="local",
                num_cpus=self._workers or available_cpus(),
                object_store_memory=self._object_store_bytes,
                include_dashboard=False,
                _temp_dir=folder.name,
                **quiet,
            )


class _RayLauncher(Launcher[Task, Result, Any]):
    """A remote call for every attempt."""

    def __init__(self, remote: Any, function: Callable[[Task], Result], *, shared: bool) -> None:
        self._ray = _import_ray()
        self._remote = remote
        self._function = function
        self._shared = shared  # large arrays, each once; with the array itself, so that its id stays its own
        self._kept: dict[int, tuple[object, Any]] = {}
        self._lock = threading.Lock()
        self._omp_num_threads = os.environ.get("OMP_NUM_THREADS")
        errors = self._ray.exceptions
        self._worker_died = (
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.ObjectLostError,
        )

    def start(self, task: Task) -> Any:
        content, references = self._packed(task)
        return self._remote.remote(content, references, self._omp_num_threads)

    def outcome(self, handle: Any) -> Result | Lost:
        try:
            result: Result = pickle.loads(self._ray.get(handle))  # noqa: S301 (from our own task)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, self._worker_died):
                return _lost(error.cause)
            raise error.cause from error
        except self._worker_died as error:
            return _lost(error)
        return result

    def stop(self, handles: Sequence[Any]) -> None:
        # Cancelling a task that has just ended may abort this process, with "Tried to complete task that was not
        # pending" (seen in Ray 2.60): short ones are left to end by themselves.
        if handles:
            _, running = self._ray.wait(list(handles), num_returns=len(handles), timeout=SECONDS_TO_END)
            for handle in running:
                self._ray.cancel(handle, force=True)

    def _packed(self, task: Task) -> tuple[bytes, list[Any]]:
        """Pickle the function and a task, with references instead of the large arrays in it if these are shared."""
        from ray import cloudpickle

        references: list[Any] = []

        def persistent_id(_: object, part: object) -> int | None:
            if not self._shared or not _is_large_array(part):
                return None
            with self._lock:
                if id(part) not in self._kept:
                    self._kept[id(part)] = part, self._ray.put(part)
                reference = self._kept[id(part)][1]
            if reference not in references:
                references.append(reference)
            return references.index(reference)

        file = io.BytesIO()
        # Made here because its base is only known once Ray is imported.
        pickler = type("SharingPickler", (cloudpickle.Pickler,), {"persistent_id": persistent_id})
        pickler(file).dump((self._function, task))
        return file.getvalue(), references


def _lost(error: Exception) -> Lost:
    return Lost(reason=f"{type(error).__name__}: {str(error).strip().splitlines()[0]}")


def _is_large_array(part: Any) -> bool:
    import numpy as np

    torch = sys.modules.get("torch")
    if type(part) is np.ndarray:
        plain = not part.dtype.hasobject
    elif torch is not None and type(part) is torch.Tensor:
        plain = part.layout is torch.strided and part.device.type == "cpu" and not part.requires_grad
    else:
        return False
    return plain and bool(part.nbytes >= SHARED_FROM)


class _Unpickler(pickle.Unpickler):
    """Undoes ``_packed`` on the node."""

    def __init__(self, content: bytes, references: list[Any]) -> None:
        super().__init__(io.BytesIO(content))
        self._references = references
        self._fetched: dict[int, object] = {}

    def persistent_load(self, key: int) -> object:
        import numpy as np

        if key not in self._fetched:
            value = _import_ray().get(self._references[key])
            # Ray gives a read-only view of its shared memory; a tensor is a copy already.
            self._fetched[key] = value.copy(order="K") if isinstance(value, np.ndarray) else value
        return self._fetched[key]


def _work(content: bytes, references: list[Any], omp_num_threads: str | None) -> bytes:
    """What runs on the node. The result is pickled here, because Ray would hand out read-only arrays."""
    if omp_num_threads is None:
        os.environ.pop("OMP_NUM_THREADS", None)
    else:
        os.environ["OMP_NUM_THREADS"] = omp_num_threads
    function, task = _Unpickler(content, references).load()
    result: bytes = _import_ray().cloudpickle.dumps(function(task))
    return result


def _import_ray() -> ModuleType:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise InputError("running on Ray needs its package: pip install 'ule-datasets[ray]'") from error
    module: ModuleType = ray
    return module


def _room(node: Mapping[str, float], gpus: float) -> int:
    """How many tasks a node has room for at a time."""
    wanted = {"CPU": 1, "GPU": gpus}
    return min(math.floor(node.get(kind, 0) / amount + 1e-6) for kind, amount in wanted.items() if amount > 0)


def _address_of_ray_start() -> str | None:
    """Address of the cluster that ``ray start`` started on this machine, if it still answers.

    Ray's own ``auto`` would also take the private cluster of some other program, and fail when that ends.
    """
    root = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 (where Ray keeps it)
    note = Path(root) / "ray" / "ray_current_cluster"
    if not note.is_file():
        return None
    address = note.read_text(encoding="utf-8").strip()
    return address if _answers(address) else None


def _answers(address: str) -> bool:
    """Whether something listens there; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True


def _for_private_cluster() -> dict[str, str]:
    """Environment of a private cluster: its workers import what this process can, as local processes do."""
    paths = [path or str(Path.cwd()) for path in sys.path]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_worker_niceness": "0",  # the default, 15, starves on a busy machine
        "RAY_USAGE_STATS_ENABLED": os.environ.get("RAY_USAGE_STATS_ENABLED", "0"),
        **({} if "RAY_AUTH_TOKEN_PATH" in os.environ else {"RAY_AUTH_TOKEN": _token()}),
    }


@functools.cache
def _token() -> str:
    """Lets only this process into its private clusters; without one, Ray writes one into the home folder."""
    return os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _short_root() -> str:
    """A folder for temporary files whose path leaves room for the names of Ray's sockets."""
    root = tempfile.gettempdir()
    return root if len(root) <= LONGEST_ROOT else "/tmp"  # noqa: S108 (the folder made in it is private)
