"""Where a local job may be joined: the field `listen`."""

import pytest

from tfleet.spec.environment import split_listen
from tfleet.spec.errors import WrongInput
from tfleet.spec.job import JobSpec


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5", "10.0.0.5", 0),
        ("10.0.0.5:7000", "10.0.0.5", 7000),
        ("trainer.lan:7000", "trainer.lan", 7000),
        ("trainer", "trainer", 0),
        ("fd00::5", "[fd00::5]", 0),
        ("[fd00::5]", "[fd00::5]", 0),
        ("[fd00::5]:7000", "[fd00::5]", 7000),
    ],
)
def test_host_and_port(text, host, port):
    assert split_listen(text) == (host, port)
    assert JobSpec.parse({"task": "mnist", "listen": text}).listen == text


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.5:", "HOST or HOST:PORT"),
        ("10.0.0.5:0", "HOST or HOST:PORT"),
        ("10.0.0.5:port", "HOST or HOST:PORT"),
        (":7000", "HOST or HOST:PORT"),
        ("a b", "HOST or HOST:PORT"),
        ("10.0.0.0/8", "HOST or HOST:PORT"),
        ("unix:@name", "HOST or HOST:PORT"),
        ("[fd00::5]7000", "HOST or HOST:PORT"),
        ("10.0.0.5:70000", "at most 65535"),
        ("0.0.0.0", "one address of this machine"),
        ("0.0.0.0:7000", "one address of this machine"),
        ("[::]:7000", "one address of this machine"),
        ("::", "one address of this machine"),
    ],
)
def test_what_is_refused(text, sentence):
    with pytest.raises(WrongInput, match=rf"^listen: given .*{sentence}"):
        JobSpec.parse({"task": "mnist", "listen": text})
