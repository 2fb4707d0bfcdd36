"""`tfleet doctor`: is this machine fit for a job of 2 workers and 2 ps, and what to do where it is not."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfleet.backends.ports import free_ports
from tfleet.spec.errors import TfleetError

WORKER_MEMORY = 487 * 10**6
"""Bytes of a worker after it has imported TensorFlow and Keras; the model and its data come on top."""
PS_MEMORY = 60 * 10**6
"""Bytes of a ps with a small model."""
WORKERS = PS = 2

LEAST_PYTHON = (3, 11)
LEAST_VERSIONS = {"tensorflow": (2, 19), "keras": (3, 12)}
LEAST_DISK = 10**9
LEAST_FILES = 256

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")

INSTALL = "install it with: pip install 'tfleet[cpu]', or tfleet[gpu] on a machine with GPUs"

IMPORT = """
import json, os, sys
os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
module = __import__(sys.argv[1])
gpus = len(module.config.list_physical_devices("GPU")) if sys.argv[1] == "tensorflow" else 0
print(json.dumps({"version": module.__version__, "gpus": gpus}))
"""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: what was checked.
        ok: whether it is as it should be.
        detail: what was found.
        advice: what to do; empty where nothing needs to be done.
        required: whether tfleet cannot train here while it is not ok; else it is slower or a trap for later.
    """

    name: str
    ok: bool
    detail: str
    advice: str = ""
    required: bool = True

    def to_json(self) -> dict[str, Any]:
        """Returns the finding as plain values."""
        return asdict(self)


def examine(run_dir: Path | str = "runs", environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Checks this machine; blocks for the seconds that importing TensorFlow takes.

    Args:
        run_dir: where runs would go; nothing is left there.
        environ: the environment that a job would be started with; by default that of this process.
    """
    environ = os.environ if environ is None else environ
    folder = nearest_folder(Path(run_dir))
    # Each import is a process of seconds, and whoever asks waits for both.
    with ThreadPoolExecutor(len(LEAST_VERSIONS)) as pool:
        imported = dict(zip(LEAST_VERSIONS, pool.map(try_import, LEAST_VERSIONS), strict=True))
    return [
        python(sys.version_info[:3]),
        *(library(name, *found) for name, found in imported.items()),
        keras_backend(environ),
        memory(available_memory()),
        cores(available_cores()),
        loopback_ports(),
        unix_sockets(),
        shared_memory(),
        run_directory(folder),
        disk(shutil.disk_usage(folder).free, folder),
        open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        proxies(environ),
    ]


def python(version: Sequence[int]) -> Finding:
    """Checks the version of Python."""
    shown = ".".join(map(str, version))
    least = ".".join(map(str, LEAST_PYTHON))
    ok = tuple(version[:2]) >= LEAST_PYTHON
    detail = f"{platform.python_implementation()} {shown} ({sys.executable})"
    return Finding("Python", ok, detail, "" if ok else f"install tfleet under Python {least} or newer")


def library(name: str, version: str, detail: str) -> Finding:
    """Checks a library by the version that importing it gave; an empty version says that it cannot be imported."""
    least = LEAST_VERSIONS[name]
    if not version:
        return Finding(name, False, detail or "cannot be imported", INSTALL)
    digits = (part for part in version.split(".")[:2] if part.isdigit())
    ok = tuple(map(int, digits)) >= least
    advice = "" if ok else f"version {'.'.join(map(str, least))} or newer is needed; {INSTALL}"
    return Finding(name, ok, f"{version}{detail}", advice)


def try_import(name: str) -> tuple[str, str]:
    """Imports a library in a process of its own; returns its version (empty: it failed) and what else is to tell."""
    command = [sys.executable, "-c", IMPORT, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        return "", "importing it took more than 300 s"
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"the import ended with code {done.returncode}"]
        return "", lines[-1]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    return told["version"], f", {told['gpus']} GPU(s)" if told["gpus"] else ""


def keras_backend(environ: Mapping[str, str]) -> Finding:
    """Checks what Keras is told to compute with."""
    given = environ.get("KERAS_BACKEND", "")
    if given in ("", "tensorflow"):
        return Finding("KERAS_BACKEND", True, given or "not set; workers set it to tensorflow")
    advice = "unset it, or set it to tensorflow, so that your own scripts and the workers compute with the same"
    return Finding("KERAS_BACKEND", False, f"{given}; workers set it to tensorflow", advice, required=False)


def memory(available: int) -> Finding:
    """Checks the bytes of memory that are available (-1: unknown) for 2 workers and 2 ps."""
    need = WORKERS * WORKER_MEMORY + PS * PS_MEMORY
    if available < 0:
        return Finding("memory", True, f"unknown; {WORKERS} workers and {PS} ps need {_mb(need)}")
    detail = f"{_mb(available)} available; {WORKERS} workers and {PS} ps need {_mb(need)}, and the model and its data"
    fit = max(0, (available - PS * PS_MEMORY) // WORKER_MEMORY)
    advice = f"end other programs, or start at most {fit} worker(s)" if fit else "end other programs, or add memory"
    return Finding("memory", available >= need, detail, "" if available >= need else advice)


def available_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes of memory that new processes can use here, a container's limit considered; -1: unknown."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return -1
    try:
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return available
    return min(available, max(0, limit - used))


def cores(count: int) -> Finding:
    """Checks the cores that this process may use."""
    advice = "" if count >= WORKERS else "training works, but more workers than cores do not make it faster"
    return Finding("cores", count >= WORKERS, f"{count}", advice, required=False)


def available_cores() -> int:
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loopback_ports() -> Finding:
    """Checks that TCP ports of the loopback interface can be listened on."""
    try:
        port = free_ports(1)[0]
        with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(server.getsockname()):
            return Finding("loopback ports", True, f"127.0.0.1:{port} can be listened on and reached")
    except (OSError, TfleetError) as error:
        return Finding("loopback ports", False, str(error), "bring the loopback interface up, or lift the firewall")


def unix_sockets() -> Finding:
    """Checks abstract Unix sockets, by which local replicas talk unless --tcp is given."""
    if sys.platform != "linux":
        return Finding("Unix sockets", True, "not on this system; local jobs use TCP on loopback")
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as peer:
            server.bind(b"\0tfleet-doctor-%d" % os.getpid())
            server.listen(1)
            peer.connect(server.getsockname())
    except OSError as error:
        return Finding("Unix sockets", False, str(error), "start local jobs with --tcp")
    return Finding("Unix sockets", True, "abstract sockets work")


def shared_memory() -> Finding:
    """Checks memory that processes can share without leaving a file."""
    try:
        handle = os.memfd_create("tfleet-doctor")
        try:
            os.truncate(handle, 1 << 20)
        finally:
            os.close(handle)
    except (OSError, AttributeError) as error:
        return Finding("shared memory", False, str(error), "training works, over sockets alone", required=False)
    return Finding("shared memory", True, "memfd_create works")


def nearest_folder(path: Path) -> Path:
    """Returns `path`, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def run_directory(folder: Path) -> Finding:
    """Checks that runs can be written under `folder`, by writing a file that has no name."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        advice = "make it writable, or give another folder with --run-dir"
        return Finding("run directory", False, f"{folder} cannot be written: {error.strerror}", advice)
    return Finding("run directory", True, f"{folder} can be written")


def disk(free: int, folder: Path) -> Finding:
    """Checks the bytes that are free where runs are written."""
    ok = free >= LEAST_DISK
    advice = "" if ok else "free some space, or give a folder on another disk with --run-dir"
    return Finding("disk", ok, f"{_mb(free)} free at {folder}", advice, required=False)


def open_files(limit: int) -> Finding:
    """Checks how many files a process may open."""
    unlimited = limit == resource.RLIM_INFINITY
    ok = unlimited or limit >= LEAST_FILES
    advice = "" if ok else f"raise it with: ulimit -n {LEAST_FILES * 4}"
    return Finding("open files", ok, "unlimited" if unlimited else f"{limit} a process", advice)


def proxies(environ: Mapping[str, str]) -> Finding:
    """Checks for proxies that TensorFlow's gRPC would use for loopback connections too."""
    names = [name for name in PROXIES if environ.get(name)]
    if not names:
        return Finding("proxies", True, "none set")
    advice = (
        "'tfleet train' and 'tfleet launch' take care of it; for TensorFlow scripts started by hand set "
        "no_proxy=localhost,127.0.0.1"
    )
    return Finding("proxies", False, f"set: {', '.join(names)}", advice, required=False)


def _mb(count: int) -> str:
    return f"{count / 10**6:,.0f} MB"
