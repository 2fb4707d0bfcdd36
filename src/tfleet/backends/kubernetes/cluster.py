"""The API server of one cluster: the only module that imports kr8s.

kr8s reads the kubeconfig, authenticates and keeps the connections. Of its objects none is used: plain paths and JSON
are all that is needed, and its synchronous interface has no access to paths. Its `exec` collects output in memory or
writes it within the event loop; a copy of gigabytes needs a stream that waits for its reader, so that the frames are
read here.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfleet.backends.kubernetes.kubeconfig import IN_CLUSTER
from tfleet.spec.errors import JobFailed, TfleetError, WrongInput

if TYPE_CHECKING:
    from kr8s.asyncio import Api

EXTRA = (
    "kr8s is not installed, which tfleet talks to Kubernetes with; install it with: pip install 'tfleet[kubernetes]'"
)

TIMEOUT = 15.0
"""Seconds for one answer of the API server."""

CLOSING = 2.0
"""Seconds to wait for connections to end."""

STDOUT, STDERR, ERROR = 1, 2, 3
"""Channels of `exec`: the first byte of each frame."""


@dataclass(frozen=True)
class Answer:
    """What the API server answered.

    Attributes:
        code: of HTTP.
        text: the body.
    """

    code: int
    text: str

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return self.code < 300

    def json(self) -> dict[str, Any]:
        """Returns the body as plain values; empty when it is none."""
        with contextlib.suppress(ValueError):
            values = json.loads(self.text)
            return values if isinstance(values, dict) else {}
        return {}

    @property
    def message(self) -> str:
        """Why not, in the API server's words."""
        return str(self.json().get("message") or self.text.strip() or f"HTTP {self.code}")


class Unreachable(JobFailed):
    """The API server does not answer."""


class Cluster:
    """A cluster, by a context of the kubeconfig; also a context manager.

    Every method blocks, and may be called from several threads. Nothing is connected before the first call.

    Args:
        context: name of the context.
    """

    def __init__(self, context: str) -> None:
        self._context = context
        self._thread: threading.Thread | None = None
        self._api: Api | None = None
        self._portal: Any = None

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        if self._portal is not None and self._thread is not None:
            with contextlib.suppress(RuntimeError):
                # Threads that still read from a connection would keep it open.
                self._portal.call(self._portal.stop, True)
            self._thread.join(CLOSING)
        self._api = self._portal = None

    def get(self, path: str, **params: str) -> dict[str, Any] | None:
        """Returns an object or a list, or None when there is none.

        Raises:
            Unreachable: when the API server does not answer.
            WrongInput: when it refuses.
        """
        answer = self.request("GET", path, params=params)
        if answer.code == 404:
            return None
        if not answer.ok:
            raise refusal(answer)
        return answer.json()

    def items(self, path: str, **params: str) -> list[dict[str, Any]]:
        """Returns the objects of a list; none when the API server does not know its kind.

        Raises:
            TfleetError: see `get`.
        """
        found = self.get(path, **params)
        return list((found or {}).get("items") or [])

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Answer:
        """Asks the API server once.

        Args:
            method: of HTTP.
            path: such as `/api/v1/namespaces/default/pods`.
            body: sent as JSON; None: nothing is.
            params: of the query.
            headers: beside kr8s's own.
            timeout: seconds for the answer.

        Raises:
            Unreachable: when there is no answer.
        """
        content: dict[str, Any] = {} if body is None else {"content": json.dumps(body)}

        async def ask() -> Answer:
            kr8s_api = await self._connected()
            base, last = _split(path)
            for attempt in range(2):
                # kr8s would raise for a refusal, and for 403 ask again for credentials, three times.
                async with kr8s_api.call_api(
                    method, "", base, None, last, False, params=params, headers=headers, timeout=timeout, **content
                ) as response:
                    answer = Answer(response.status_code, response.text)
                if answer.code != 401 or attempt or (headers and "X-Tfleet-Token" in headers):
                    break
                await kr8s_api.auth.reauthenticate()
                await kr8s_api._create_session()
                _remove_copies(kr8s_api)
            return answer

        answer: Answer = self._call(ask)
        return answer

    def lines(self, path: str, **params: str) -> Iterator[str]:
        """Yields the lines of an answer as they come, until it ends or its reader closes this iterator.

        Raises:
            Unreachable: when the connection breaks.
            WrongInput: when the API server refuses.
        """

        async def opened() -> Any:
            api = await self._connected()
            base, last = _split(path)
            return api.call_api("GET", "", base, None, last, False, True, params=params, timeout=None)

        with self._entered(opened) as response:
            if response.status_code >= 300:
                body = self._call(response.aread)
                raise refusal(Answer(response.status_code, body.decode(errors="replace")))
            # httpx's own lines end at every kind of line break, a progress bar's return included.
            stream, rest = response.aiter_bytes(), b""
            while (piece := self._call(_next, stream)) is not None:
                *whole, rest = (rest + piece).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")

    def execute(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> Iterator[bytes]:
        """Runs a command in a pod and yields its output as it comes.

        Raises:
            Unreachable: when the connection breaks.
            JobFailed: when the command fails, with the last line that it wrote to stderr.
        """

        async def opened() -> Any:
            api = await self._connected()
            query = {"command": list(command), "container": container, "stdout": "true", "stderr": "true"}
            return api.open_websocket(
                version="v1",
                namespace=namespace,
                url=f"pods/{pod}/exec",
                subprotocols=("v4.channel.k8s.io",),
                params=query,
                # The API server does not answer pings while the pod is silent.
                keepalive_ping_interval_seconds=None,
                max_message_size_bytes=1 << 20,
                queue_size=64,
            )

        complaint = b""
        with self._entered(opened) as socket:
            while True:
                frame = self._call(socket.receive_bytes)
                channel, data = frame[0], frame[1:]
                if channel == STDOUT and data:
                    yield data
                elif channel == STDERR:
                    complaint = (complaint + data)[-4096:]
                elif channel == ERROR:
                    ended = json.loads(data)
                    if ended.get("status") == "Success":
                        return
                    said = complaint.decode(errors="replace").strip().splitlines() or [str(ended.get("message"))]
                    raise JobFailed(f"'{command[0]}' failed in pod {pod}: {said[-1]}")

    @contextlib.contextmanager
    def forward(self, namespace: str, pod: str, port: int, local: int = 0, host: str = "127.0.0.1") -> Iterator[int]:
        """Forwards a port of this machine to a pod; yields its number.

        Args:
            namespace: of the pod.
            pod: its name.
            port: of the pod.
            local: port of this machine; 0: any free one.
            host: address of this machine to listen on.

        Raises:
            Unreachable: when the API server does not answer, or `local` is taken.
        """

        async def opened() -> Any:
            from kr8s.asyncio.objects import Pod
            from kr8s.asyncio.portforward import PortForward

            api = await self._connected()
            resource = Pod({"metadata": {"name": pod, "namespace": namespace}}, namespace=namespace, api=api)
            return PortForward(resource, port, local or "auto", host)

        with self._entered(opened) as number:
            yield int(number)

    @contextlib.contextmanager
    def _entered(self, opened: Callable[[], Any]) -> Iterator[Any]:
        """Enters the asynchronous context manager that `opened` returns, and leaves it with the block."""
        manager = self._call(opened)
        entered = self._portal.wrap_async_context_manager(manager)
        try:
            value = entered.__enter__()
        except Exception as error:
            raise _translated(error, self._context) from None
        try:
            yield value
        finally:
            # What happens on the way out has no reader any more: the connection may be broken already.
            with contextlib.suppress(Exception):
                entered.__exit__(None, None, None)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return self._loop().call(function, *arguments)
        except TfleetError:
            raise
        except Exception as error:
            raise _translated(error, self._context) from None

    def _loop(self) -> Any:
        if self._portal is None:
            try:
                import anyio
                import kr8s  # noqa: F401
                from anyio.from_thread import BlockingPortal
            except ModuleNotFoundError:
                raise WrongInput(EXTRA) from None
            started: Future[Any] = Future()

            async def serve() -> None:
                async with BlockingPortal() as portal:
                    started.set_result(portal)
                    await portal.sleep_until_stopped()

            # A daemon: a process that ends without closing this must not wait for it.
            self._thread = threading.Thread(target=anyio.run, args=(serve,), name="cluster", daemon=True)
            self._thread.start()
            self._portal = started.result()
        return self._portal

    async def _connected(self) -> Api:
        if self._api is None:
            import kr8s.asyncio

            context = None if self._context == IN_CLUSTER else self._context
            self._api = await kr8s.asyncio.api(context=context)
            _remove_copies(self._api)
        return self._api


def refusal(answer: Answer) -> TfleetError:
    """Returns the error that a refusal of the API server means."""
    if answer.code == 401:
        return WrongInput(f"the cluster does not know who you are: {answer.message}; log in to it again")
    if answer.code == 403:
        return WrongInput(f"the cluster does not allow it: {answer.message}; ask its administrator for the right")
    if answer.code >= 500:
        return Unreachable(f"the API server failed: {answer.message}; try again")
    return WrongInput(f"the cluster refuses it: {answer.message}")


def _split(path: str) -> tuple[str, str]:
    """Returns a path in the two parts that kr8s puts together again."""
    base, _, last = path.rpartition("/")
    return (base, last) if base else (path, "")


async def _next(stream: Any) -> bytes | None:
    async for piece in stream:
        return bytes(piece)
    return None


def _translated(error: BaseException, context: str) -> TfleetError:
    """Returns the error for users that a failure of the connection, or of the kubeconfig, means."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TfleetError):
        return error
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, ValueError | KeyError | RuntimeError) and module == "builtins":
        return WrongInput(f"the context '{context}' of the kubeconfig cannot be used: {error}; correct it")
    if isinstance(error, OSError) or module in ("httpx", "httpcore", "httpx_ws", "kr8s", "ssl", "wsproto", "anyio"):
        what = str(error) or type(error).__name__
        return Unreachable(f"the cluster of context '{context}' does not answer: {what}; check that it is up")
    raise error


def _remove_copies(api: Api) -> None:
    """Removes the files into which kr8s has written the kubeconfig's keys: it has read them, and would leave them."""
    folder = os.path.realpath(tempfile.gettempdir())
    config = json.dumps(api.auth.kubeconfig.raw, default=str) if hasattr(api.auth, "kubeconfig") else ""
    for file in (api.auth.client_key_file, api.auth.client_cert_file, api.auth.server_ca_file):
        path = os.path.realpath(str(file)) if file else ""
        if os.path.dirname(path) == folder and os.path.basename(path) not in config:
            with contextlib.suppress(OSError):
                os.unlink(path)
