"""File names of commits: each says which commit it belongs to, and none is ever used twice.

```
commit-0000000042.g00003.part-001.safetensors      what one ps holds
commit-0000000042.g00003.state.safetensors         carried state and frozen values
commit-0000000042.g00003.manifest.json             written last: with it the commit exists
generation-0000000003                              empty; its name is all it says
```

The generation is part of the name because a rollback may count the same number again. A second try of one file within a
generation gets `-1`, `-2`, ... before its suffix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMMIT = re.compile(
    r"commit-(?P<number>\d{10,})\.g(?P<generation>\d{5,})\.(?P<what>part-\d{3,}|state|manifest)(?:-\d+)?"
    r"\.(?:safetensors|json)(?P<unfinished>\.tmp)?",
    re.ASCII,
)
_GENERATION = re.compile(r"generation-(\d{10,})", re.ASCII)


@dataclass(frozen=True, order=True)
class Key:
    """Identifies one commit; the greater of two is the one to go on from.

    Attributes:
        generation: compared first: what a later generation wrote is the history that survived.
        number: counts commits within a job.
    """

    generation: int
    number: int


def part(key: Key, index: int, attempt: int = 0) -> str:
    """Returns the name of the file of partition `index`."""
    return f"{_stem(key)}.part-{index:03d}{_suffix(attempt)}.safetensors"


def state(key: Key, attempt: int = 0) -> str:
    """Returns the name of the file of carried state and frozen values."""
    return f"{_stem(key)}.state{_suffix(attempt)}.safetensors"


def manifest(key: Key) -> str:
    """Returns the name of the manifest."""
    return f"{_stem(key)}.manifest.json"


def unfinished_manifest(key: Key, attempt: int = 0) -> str:
    """Returns the name of the manifest while it is being written."""
    return f"{_stem(key)}.manifest{_suffix(attempt)}.json.tmp"


def generation(number: int) -> str:
    """Returns the name of the file that claims a generation."""
    return f"generation-{number:010d}"


def key_of(name: str) -> Key | None:
    """Returns the commit that a file belongs to, finished or not, or None for any other file."""
    match = _COMMIT.fullmatch(name)
    return Key(int(match["generation"]), int(match["number"])) if match else None


def is_manifest(name: str) -> bool:
    """Tells whether `name` is that of a finished manifest."""
    key = key_of(name)
    return key is not None and name == manifest(key)


def generation_of(name: str) -> int | None:
    """Returns the generation that a file claims by its name, or None for any other file."""
    match = _GENERATION.fullmatch(name)
    return int(match[1]) if match else None


def _stem(key: Key) -> str:
    return f"commit-{key.number:010d}.g{key.generation:05d}"


def _suffix(attempt: int) -> str:
    return f"-{attempt}" if attempt else ""
