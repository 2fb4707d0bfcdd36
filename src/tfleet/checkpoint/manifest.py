"""The manifest: everything about one commit but its vectors, and the checksum of every file, its own bytes included."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfleet.checkpoint.names import Key
from tfleet.spec.errors import WrongInput

FORMAT = 1
"""Version of manifests written here, and the newest that is read."""


def _plain(value: Any) -> Any:
    """Returns `value` as JSON gives it back, and refuses what JSON would change silently."""
    if isinstance(value, dict):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"the key {wrong[0]!r} must be text")
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or type(value) in (str, bool, int, float):
        return value
    raise ValueError(f"{type(value).__name__} is not a plain JSON value")


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
"""A JSON object: text keys, and plain values at any depth. Tuples become lists."""

_Count = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Record):
    """One file of a commit.

    Attributes:
        name: within the folder of the store.
        bytes: its length.
        sha256: its checksum, in hexadecimal.
    """

    name: str = Field(pattern=r"^commit-[a-z0-9.-]+\.safetensors$")
    bytes: _Count
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class StateFile(File):
    """The file of carried state and frozen values.

    Attributes:
        state: number of float32 values of state.
        frozen: number of frozen float32 values.
    """

    state: _Count
    frozen: _Count


class Part(File):
    """The file of one partition, as the ps that wrote it reports it (plain values: `model_dump`, `model_validate`).

    Attributes:
        index: of the ps.
        low: first parameter.
        high: one past the last parameter; equal to `low` when the ps holds none.
        iterations: updates that the optimizer of this partition has applied.
        slots: names of the optimizer's slots.
    """

    index: _Count
    low: _Count
    high: _Count
    iterations: _Count
    slots: tuple[str, ...]


class Manifest(_Record):
    """One commit. An instance is complete: its parts cover [0, parameters) without gap or overlap.

    Dicts hold plain JSON values; non-finite floats are written as Python's json does (NaN, Infinity).

    Attributes:
        format: version of the manifest's own format.
        number: counts commits within a job, from 0.
        generation: of the coordinator that made it.
        step: global step.
        time: when, in seconds since 1970.
        parameters: length of the parameter vector.
        parts: what each ps holds, by index.
        state: where carried state and frozen values are.
        layout: what the vectors mean (`Layout.to_json`).
        optimizer: its configuration.
        ledger: what was acknowledged.
        settings: what must stay the same when training goes on (batch size, seed, strategy, xla, threads, ...).
        metrics: of training and evaluation, for people and for keeping the best, and the partial updates in it.
    """

    format: int = Field(FORMAT, ge=1, le=FORMAT)
    number: _Count
    generation: _Count
    step: _Count
    time: float
    parameters: _Count
    parts: tuple[Part, ...]
    state: StateFile
    layout: Plain
    optimizer: Plain
    ledger: Plain
    settings: Plain
    metrics: Plain = Field(default_factory=dict)

    @field_validator("parts")
    @classmethod
    def _by_index(cls, parts: tuple[Part, ...]) -> tuple[Part, ...]:
        return tuple(sorted(parts, key=lambda part: part.index))

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if [part.index for part in self.parts] != list(range(len(self.parts))):
            raise ValueError(f"its parts must be numbered from 0, not {[part.index for part in self.parts]}")
        end = 0
        for part in self.parts:
            if part.low != end or part.high < part.low:
                raise ValueError(f"part {part.index} must begin at {end}, not cover {part.low} to {part.high}")
            if part.slots != self.parts[0].slots:
                raise ValueError(f"part {part.index} has the slots {list(part.slots)}, part 0 others")
            end = part.high
        if not self.parts or end != self.parameters:
            raise ValueError(f"its parts end at {end} instead of {self.parameters}")
        return self

    @property
    def key(self) -> Key:
        """Identifies the commit, and orders commits by which to go on from."""
        return Key(self.generation, self.number)

    @property
    def files(self) -> Sequence[File]:
        """All files but the manifest itself."""
        return (*self.parts, self.state)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the optimizer's slots."""
        return self.parts[0].slots

    def iterations(self, low: int, high: int) -> int:
        """Returns the updates applied to parameters [low, high): the most of any part in it.

        Parts differ only when a worker died between two pushes of one step (design, section 5).
        """
        touching = [p.iterations for p in self.parts if max(low, p.low) < min(high, p.high)]
        return max(touching or [part.iterations for part in self.parts])


_SEAL = ',"sha256":"{}"}}\n'
_SEAL_LENGTH = len(_SEAL.format("0" * 64))


def encode(manifest: Manifest) -> bytes:
    """Returns a manifest as one JSON object, whose last member is the checksum of the object without that member."""
    body = json.dumps(manifest.model_dump(mode="python"), separators=(",", ":")).encode()
    return _sealed(body)


def decode(data: bytes) -> Manifest:
    """Returns the manifest that `encode` gave these bytes.

    Raises:
        ValueError: any byte differs; the message goes on after the file's name.
        WrongInput: a newer tfleet wrote it.
    """
    body = data[:-_SEAL_LENGTH] + b"}"
    if _sealed(body) != data:
        raise ValueError("does not have the bytes that were written (its checksum differs)")
    values = json.loads(body)
    if not isinstance(values, dict) or not isinstance(values.get("format"), int):
        raise ValueError("is not a manifest")
    if values["format"] > FORMAT:
        raise WrongInput(
            f"commit {values.get('number')} has format {values['format']}, and this tfleet reads formats up to "
            f"{FORMAT}; use the tfleet that wrote it, or a newer one"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"does not describe a whole commit: {where} {first['msg']}".replace("  ", " ")) from None


def _sealed(body: bytes) -> bytes:
    return body[:-1] + _SEAL.format(hashlib.sha256(body).hexdigest()).encode()
