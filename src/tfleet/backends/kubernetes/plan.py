"""What the Kubernetes backend would install: the object behind `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tfleet.backends.base import Plan
from tfleet.backends.kubernetes import objects
from tfleet.backends.kubernetes.handle import Handle
from tfleet.backends.kubernetes.values import hidden


@dataclass(frozen=True)
class KubernetesPlan(Plan):
    """What `start` would install.

    Attributes:
        at: context, namespace and release.
        values: of the chart, as they will be given to helm; secrets are hidden when they are shown.
        manifest: the rendered chart, without its secrets.
    """

    at: Handle
    values: Mapping[str, Any]
    manifest: str

    @property
    def handle(self) -> str:
        """What every later command takes."""
        return str(self.at)

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain values; see `Plan.to_json`."""
        return {
            "handle": self.handle,
            **super().to_json(),
            "values": hidden(self.values),
            "manifest": objects.parse(self.manifest),
        }

    def text(self) -> str:
        """Returns the values, then the manifest, as one stream of YAML that `kubectl` takes too."""
        values = yaml.safe_dump(hidden(self.values), sort_keys=False, allow_unicode=True)
        commented = "".join(f"#   {line}\n" for line in values.splitlines())
        head = f"# {self.handle}\n# run directory: {self.run_dir}, on the volume\n# values:\n{commented}"
        return head + self.manifest.rstrip() + "\n"
