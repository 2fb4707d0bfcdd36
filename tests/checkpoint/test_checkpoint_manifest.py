from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tfleet.checkpoint.manifest import FORMAT, Manifest, Part, decode, encode
from tfleet.checkpoint.names import Key
from tfleet.spec.errors import WrongInput

FILE = {"name": "commit-0000000001.g00001.state.safetensors", "bytes": 8, "sha256": "0" * 64}


def part(index: int, low: int, high: int, slots: tuple[str, ...] = ("m",)) -> dict[str, Any]:
    return {**FILE, "index": index, "low": low, "high": high, "iterations": 3, "slots": slots}


def manifest(**fields: Any) -> Manifest:
    plain: dict[str, Any] = {"layout": {}, "optimizer": {}, "ledger": {}, "settings": {}}
    values = {"number": 4, "generation": 2, "step": 7, "time": 1.5, "parameters": 5, "parts": [part(0, 0, 5)]}
    return Manifest.model_validate({**values, **plain, "state": {**FILE, "state": 0, "frozen": 0}, **fields})


def reseal(**fields: Any) -> bytes:
    class Raw:
        def model_dump(self, mode: str) -> dict[str, Any]:
            return {**manifest().model_dump(), **fields}

    return encode(Raw())  # type: ignore[arg-type]


def test_a_manifest_is_json_and_comes_back() -> None:
    made = manifest(ledger={"seen": [[0, 20], [40, 60]], "é": None}, metrics={"loss": 0.1, "accuracy": math.inf})
    data = encode(made)
    assert decode(data) == made
    assert json.loads(data)["step"] == 7
    assert data.count(b"\n") == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_any_plain_values_come_back(values: dict[str, Any]) -> None:
    made = manifest(ledger=values, metrics=values)
    assert decode(encode(made)) == made
    assert repr(decode(encode(made)).ledger) == repr(values)


def test_tuples_become_lists_at_once() -> None:
    assert manifest(layout={"shape": (1, (2,))}).layout == {"shape": [1, [2]]}


@pytest.mark.parametrize("value", [np.float32(1), np.zeros(2), {3: "x"}, b"x", {1}, [object()]])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match=r"plain JSON value|must be text"):
        manifest(ledger={"a": [value]})


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [part(0, 0, 4)],
        [part(0, 0, 6)],
        [part(0, 1, 5)],
        [part(0, 0, 2), part(1, 3, 5)],
        [part(0, 0, 3), part(1, 2, 5)],
        [part(0, 0, 5), part(1, 5, 4)],
        [part(0, 0, 2), part(2, 2, 5)],
        [part(0, 0, 2), part(0, 2, 5)],
        [part(0, 0, 2), part(1, 2, 5, slots=())],
    ],
)
def test_parts_that_do_not_cover_the_parameters_are_refused(parts: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        manifest(parts=parts)
    with pytest.raises(ValueError, match="whole commit"):
        decode(reseal(parts=parts))


def test_parts_come_in_any_order_and_over_the_wire() -> None:
    made = manifest(
        parts=[Part.model_validate(json.loads(json.dumps(part(i, *b)))) for i, b in ((1, (2, 5)), (0, (0, 2)))]
    )
    assert [p.index for p in made.parts] == [0, 1]
    assert made.slots == ("m",)
    assert made.key == Key(2, 4)


def test_a_newer_format_is_wrong_input() -> None:
    with pytest.raises(WrongInput, match=rf"commit 4 has format {FORMAT + 1}.*up to {FORMAT}; use"):
        decode(reseal(format=FORMAT + 1, invented="later"))


@pytest.mark.parametrize("fields", [{"format": 0}, {"format": "1"}, {"invented": 1}, {"number": -1}, {"step": None}])
def test_other_strange_manifests_are_not_used(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not a manifest|whole commit"):
        decode(reseal(**fields))


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "commit-1/../../x.safetensors", "commit-1.json", "/commit-.safetensors"]
)
def test_a_file_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        manifest(parts=[{**part(0, 0, 5), "name": name}])


@given(st.binary(max_size=200))
def test_other_bytes_are_damage(data: bytes) -> None:
    with pytest.raises(ValueError, match="checksum"):
        decode(data)


@pytest.mark.processes
def test_nothing_heavy_is_imported() -> None:
    code = "import sys, tfleet.checkpoint.store; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path("/")).stdout
    assert not {"tensorflow", "keras", "safetensors"} & set(out.split())
