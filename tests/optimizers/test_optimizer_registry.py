"""The registry, the specs, slots, and the flushing of denormals: what the conformance suite does not see."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tfleet.optimizers import OptimizerSpec, build, registry
from tfleet.optimizers.denormals import FlushDenormals, available
from tfleet.spec.errors import WrongInput


def test_registry_holds_one_optimizer_for_each_file():
    assert list(registry()) == ["adagrad", "adam", "adamw", "rmsprop", "sgd"]
    assert [kind.keras_name for kind in registry().values()] == ["Adagrad", "Adam", "AdamW", "RMSprop", "SGD"]


def test_build_refuses_an_unknown_name_with_the_list():
    with pytest.raises(
        WrongInput,
        match=r"^unknown optimizer adan \(did you mean 'adam'\?\); allowed: adagrad, adam, adamw, rmsprop, sgd$",
    ):
        build(OptimizerSpec("adan"))


def test_build_refuses_an_unknown_hyperparameter_with_the_list():
    with pytest.raises(
        WrongInput,
        match=r"^unknown hyperparameter beta1 of optimizer adam \(did you mean 'beta_1'\?\); allowed: beta_1, beta_2, "
        r"epsilon, amsgrad$",
    ):
        build(OptimizerSpec("adam", {"beta1": 0.9}))


def test_spec_keeps_every_bit_through_json():
    spec = OptimizerSpec("adam", {"beta_1": 0.1 + 0.2, "epsilon": 1e-7, "amsgrad": True}, 1 / 3)
    assert OptimizerSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("name", "hyper", "slots"),
    [
        ("sgd", {}, ()),
        ("sgd", {"momentum": 0.5}, ("momentum",)),
        ("rmsprop", {}, ("velocity",)),
        ("rmsprop", {"momentum": 0.5}, ("velocity", "momentum")),
        ("rmsprop", {"momentum": 0.5, "centered": True}, ("velocity", "average_gradient", "momentum")),
        ("adagrad", {}, ("accumulator",)),
        ("adam", {}, ("momentum", "velocity")),
        ("adamw", {"amsgrad": True}, ("momentum", "velocity", "velocity_hat")),
    ],
)
def test_slots_depend_on_the_hyperparameters(name, hyper, slots):
    optimizer = build(OptimizerSpec(name, hyper))
    assert optimizer.slot_names == slots
    assert all(optimizer.initial(slot) == (0.1 if slot == "accumulator" else 0.0) for slot in slots)


def test_adagrad_starts_its_slot_at_the_given_value():
    assert build(OptimizerSpec("adagrad", {"initial_accumulator_value": 0.5})).initial("accumulator") == 0.5


def test_flushing_ends_with_the_context_even_after_an_error():
    tiny = np.full(64, 1e-30, np.float32)
    flush = FlushDenormals()
    products = []

    def multiply_and_fail():
        with flush:
            products.append(tiny * np.float32(1e-10))
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            multiply_and_fail()
        assert np.all(products[-1] == 0) == available()
        assert np.all(tiny * np.float32(1e-10) > 0)


@pytest.mark.skipif(not available(), reason="denormals are flushed on Linux on x86-64 only")
def test_slots_hold_no_denormals():
    optimizer = build(OptimizerSpec("adam"))
    params, grad = np.ones(100, np.float32), np.full(100, 1e-20, np.float32)
    slots = {name: np.zeros(100, np.float32) for name in optimizer.slot_names}
    optimizer.apply(params, grad, slots, 0, 0.001, [])
    assert np.all(slots["velocity"] == 0)


def test_import_brings_no_tensorflow():
    code = "import sys, tfleet.optimizers as o; o.registry(); print(*{'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
