"""Numbers as people read them."""

import math

import pytest

from tfleet.api.text import count, duration, metrics_line, number, rate


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.93123, "0.9312"),
        (12.4123, "12.41"),
        (1204.4, "1,204"),
        (3.1e-5, "3.1e-05"),
        (0.0, "0.0000"),
        (math.nan, "nan"),
    ],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(1204.4, "1,204"), (99.94, "99.9"), (0.254, "0.25")])
def test_rate(value, text):
    assert rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.44, "4.4 s"),
        (9.96, "10 s"),
        (0.0, "0 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (-1, "0 s"),
    ],
)
def test_duration(value, text):
    assert duration(value) == text


def test_count():
    assert [count(1, "worker"), count(2, "worker"), count(2, "ps"), count(2000, "step")] == [
        "1 worker",
        "2 workers",
        "2 ps",
        "2,000 steps",
    ]


def test_metrics_line_puts_accuracy_first_and_loss_last():
    assert metrics_line({"loss": 0.5, "auc": 0.9, "accuracy": 0.8}) == "accuracy 0.8000 · auc 0.9000 · loss 0.5000"
