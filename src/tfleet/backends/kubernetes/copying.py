"""Brings a run directory from a job's volume to this machine, and proves that it is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import yaml

from tfleet.backends.kubernetes import helm, objects
from tfleet.backends.kubernetes.job import KubernetesJob
from tfleet.backends.kubernetes.tools import Tell, tool_pod
from tfleet.spec.errors import JobFailed, WrongInput

PARTS = {
    "export": ("export",),
    "summaries": ("summaries",),
    "checkpoints": ("checkpoints",),
    "logs": ("logs", "deploy.log"),
}
"""What `--only` may name, and what it brings."""

ALWAYS = ("job.yaml", "status.json", "metrics.jsonl")
"""Small files without which a folder is no run directory."""

TASK_PATH = "/etc/tfleet/task/"
"""Where the pods see a shipped task file; a copied run keeps it in `task/`."""

TOTAL, SUMS = ".tfleet/total", ".tfleet/sums"
"""First and last member of the stream; no file is called so, since the private folder stays where it is."""

BLOCK = 1 << 20

Progress = Callable[[int, int], None]
"""Gets the bytes that have come, and of how many."""

SEND = f"""
import json, os, sys, tarfile, zlib
from io import BytesIO
root, wanted = sys.argv[1], set(sys.argv[2:])
if not os.path.isfile(os.path.join(root, "job.yaml")):
    sys.exit("there is no run in " + root + " on the volume yet")
def kept(path):
    first = path.split(os.sep)[0]
    return first != ".tfleet" and (not wanted or first in wanted)
found = []
for folder, folders, files in os.walk(root):
    for name in sorted(files):
        path = os.path.join(folder, name)
        relative = os.path.relpath(path, root)
        if kept(relative) and os.path.isfile(path) and not os.path.islink(path):
            found.append(relative)
class Exactly:
    # A file may grow, or be cut, while it is read: as many bytes are sent as were announced.
    def __init__(self, file, size):
        self.file, self.left, self.sum = file, size, 0
    def read(self, count):
        data = self.file.read(min(count, self.left))
        data += bytes(min(count, self.left) - len(data))
        self.left -= len(data)
        self.sum = zlib.crc32(data, self.sum)
        return data
tar = tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize={BLOCK}, format=tarfile.PAX_FORMAT)
def add(name, size, source, time=0):
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, time
    tar.addfile(info, source)
def tell(name, values):
    data = json.dumps(values).encode()
    add(name, len(data), BytesIO(data))
sizes = 0
for path in found:
    try:
        sizes += os.path.getsize(os.path.join(root, path))
    except OSError:
        pass
tell({TOTAL!r}, {{"bytes": sizes}})
sums = {{}}
for path in found:
    try:
        file = open(os.path.join(root, path), "rb")
    except FileNotFoundError:
        continue  # an old commit, removed meanwhile
    with file:
        stat = os.fstat(file.fileno())
        source = Exactly(file, stat.st_size)
        add(path, stat.st_size, source, int(stat.st_mtime))
        sums[path] = source.sum
tell({SUMS!r}, sums)
tar.close()
sys.stdout.buffer.flush()
"""
"""What runs in the pod: a tar of the regular files, each with its CRC-32 in the last member."""


def copy_run(job: KubernetesJob, folder: Path, only: Sequence[str], tell: Tell, progress: Progress) -> dict[str, Any]:
    """Copies the run directory of a job into a new folder; blocks. Nothing is left when it fails.

    Args:
        job: running or over.
        folder: does not exist yet, or is empty.
        only: names of `PARTS`; none: everything.
        tell: shows what is waited for.
        progress: shows how far it is.

    Returns:
        Number of `files` and `bytes`.

    Raises:
        WrongInput: when the folder is there already, or the job keeps no run directory.
        JobFailed: when what came is not whole.
    """
    if not job.run_dir:
        raise WrongInput(f"the job {job.handle} runs a command of your own and keeps no run directory; use kubectl cp")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WrongInput(f"{folder} is there already; give another folder, as in 'tfleet copy {job.handle} NEW_FOLDER'")
    wanted = [*ALWAYS, *(name for part in only for name in PARTS[part])] if only else []
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise WrongInput(f"{folder} cannot be made: {error.strerror}; give another folder") from None
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, half, ignore_errors=True)
        with tool_pod(job.cluster, job.at, "copy", tell) as pod:
            container = objects.main_container(pod)["name"]
            command = ["python", "-c", SEND, job.run_dir, *wanted]
            stream = job.cluster.execute(job.at.namespace, objects.name_of(pod), container, command)
            try:
                result = receive(stream, half, progress)
            except OSError as error:
                raise JobFailed(f"{folder} cannot be written: {error.strerror}; make room or give another") from None
        _bring_task(job, half, folder)
        _point_here(half, job.run_dir, folder.absolute())
        half.chmod(0o777 & ~_umask())
        os.replace(half, folder)
    return result


def receive(stream: Iterator[bytes], folder: Path, progress: Progress) -> dict[str, Any]:
    """Unpacks what `SEND` sends into a folder, and checks that all of it came as it was sent.

    Args:
        stream: the tar, in pieces of any size.
        folder: exists and is empty.
        progress: see `Progress`.

    Raises:
        JobFailed: when it is not whole, or holds what a run directory does not.
        OSError: when it cannot be written.
    """
    total, done = 0, 0
    came: dict[str, int] = {}
    sums: dict[str, int] | None = None
    try:
        with tarfile.open(fileobj=_Reader(stream), mode="r|") as tar:  # type: ignore[call-overload]
            for member in tar:
                source = tar.extractfile(member)
                if source is None:
                    raise JobFailed(f"the copy holds {member.name}, which is no file; try again")
                if member.name in (TOTAL, SUMS):
                    values = json.loads(source.read())
                    total, sums = (values["bytes"], sums) if member.name == TOTAL else (total, values)
                    continue
                path = folder / inside(member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                came[member.name], size = _write(source, path, partial(_report, progress, done, total))
                os.utime(path, (member.mtime, member.mtime))
                done += size
    except tarfile.TarError as error:
        raise JobFailed(f"the copy broke off after {done:,} bytes ({error}); try again") from None
    if sums is None or sums != came:
        sent = len(sums or {})
        raise JobFailed(f"the copy is not whole: {len(came)} of {sent} files came, or not as they were sent; try again")
    return {"files": len(came), "bytes": done}


def inside(name: str) -> PurePosixPath:
    """Returns a member's path, which stays inside the folder.

    Raises:
        JobFailed: when it would not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise JobFailed(f"the copy holds the path {name}, which leads out of the folder; nothing was kept")
    return path


class _Reader:
    """Makes a file out of pieces, as far as tarfile needs one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, count: int) -> bytes:
        """Returns `count` bytes, less at the end only."""
        parts, missing = [self._rest[:count]], count - len(self._rest)
        self._rest = self._rest[count:]
        while missing > 0:
            piece = next(self._pieces, b"")
            if not piece:
                break
            parts.append(piece[:missing])
            self._rest = piece[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)


def _write(source: IO[bytes], path: Path, progress: Callable[[int], None]) -> tuple[int, int]:
    """Writes a file; returns its CRC-32 and its size."""
    total, size = 0, 0
    with path.open("wb") as file:
        while block := source.read(BLOCK):
            file.write(block)
            total, size = zlib.crc32(block, total), size + len(block)
            progress(size)
    return total, size


def _bring_task(job: KubernetesJob, half: Path, folder: Path) -> None:
    """Makes job.yaml fit this machine: without the pods' certificates, and with the task's file, put beside the run."""
    shipped = helm.values_of(job.at).get("taskFile") or {}
    job_file = half / "job.yaml"
    before = yaml.safe_load(job_file.read_text(encoding="utf-8"))
    values = {name: value for name, value in before.items() if not name.startswith("tls_")}
    task = str(values.get("task", ""))
    if shipped.get("name") and task.startswith(TASK_PATH):
        (half / "task").mkdir(exist_ok=True)
        (half / "task" / shipped["name"]).write_text(shipped["content"], encoding="utf-8")
        values["task"] = f"{folder.absolute() / 'task'}/{task.removeprefix(TASK_PATH)}"
    if values != before:
        job_file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _point_here(half: Path, run_dir: str, folder: Path) -> None:
    """Makes the status name the export where it is now."""
    file = half / "status.json"
    if file.is_file():
        status = json.loads(file.read_text(encoding="utf-8"))
        export = str(status.get("export") or "")
        if export.startswith(f"{run_dir}/"):
            status["export"] = str(folder / export.removeprefix(f"{run_dir}/"))
            file.write_text(json.dumps(status) + "\n", encoding="utf-8")


def _report(progress: Progress, before: int, total: int, more: int) -> None:
    progress(before + more, total)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
