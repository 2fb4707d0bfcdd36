"""A command that was run to its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def good(self) -> Finished:
        """Returns itself; a command that failed fails the test with what it said."""
        assert self.code == 0, f"ended with {self.code}:\n{self.out[-4000:]}\n{self.err[-4000:]}"
        return self
