"""One replica of a job under test: `light_replica.py MODULE --index I --run-dir RUN`, as `python -m MODULE` otherwise.

With CHAOS_LIGHT=1 in the environment a worker or evaluator has `light_model` in the place of TensorFlow; all else of it
is real. With CHAOS_PROXY=HOST:PORT every connection to a TCP address goes through the harness's proxy.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def without_tensorflow() -> None:
    """Puts the light model where the worker looks for what would import TensorFlow."""
    import light_model

    parts = {
        "keras_setup": {"set_up": lambda *_: None},
        "built": {"Built": light_model.LightBuilt},
        "recorder": {"Recorder": light_model.Silent},
        "summaries": {"Scalars": light_model.Silent, "evaluator_folder": lambda folder: folder},
    }
    for name, values in parts.items():
        module = types.ModuleType(f"tfleet.worker.{name}")
        vars(module).update(values)
        sys.modules[module.__name__] = module


def through_proxy(proxy: str, who: str) -> None:
    """Sends every TCP connection to the proxy, which is told who calls whom."""
    from tfleet.wire.address import Address, tune

    direct, (host, _, port) = Address.connect, proxy.partition(":")

    def connect(self: Address, timeout: float) -> socket.socket:
        if self.path:
            return direct(self, timeout)
        sock = socket.create_connection((host, int(port)), timeout=timeout)
        sock.sendall(f"{who} {self}\n".encode().ljust(64))
        return tune(sock)

    Address.connect = connect  # type: ignore[method-assign]


if __name__ == "__main__":
    module, *sys.argv[1:] = sys.argv[1:]
    if os.environ.get("CHAOS_PROXY"):
        through_proxy(os.environ["CHAOS_PROXY"], os.environ["POD_NAME"])
    if os.environ.get("CHAOS_LIGHT") == "1" and module == "tfleet.worker":
        without_tensorflow()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
