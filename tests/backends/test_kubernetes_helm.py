"""helm's errors as sentences, and what reaches helm."""

import os
import stat
import sys
from pathlib import Path

import pytest
import yaml

from tfleet.backends.kubernetes import helm
from tfleet.backends.kubernetes.handle import Handle
from tfleet.spec.errors import JobFailed, WrongInput

AT = Handle("ctx", "ns", "digits")


@pytest.mark.parametrize(
    ("said", "kind", "sentence"),
    [
        (
            "Error: execution error at (tfleet/templates/checks.yaml:3:4): ps.number=3 cannot change\n  from 2\n\n"
            "Use --debug flag to render out invalid YAML\n",
            WrongInput,
            "ps.number=3 cannot change from 2",
        ),
        (
            "Error: UPGRADE FAILED: template: c/templates/a.yaml:1: error calling include: template: c/_h.tpl:2:3: "
            "error calling fail: use 2, or 4\n",
            WrongInput,
            "use 2, or 4",
        ),
        (
            "Error: values don't meet the specifications of the schema(s) in the following chart(s):\nc:\n"
            "- at '/b': additional properties 'z' not allowed\n- at '/a': got string, want integer\n",
            WrongInput,
            "the chart refuses the values: '/b': additional properties 'z' not allowed; '/a': got string, want integer"
            "; change them in --values or --set",
        ),
        (
            "Error: INSTALLATION FAILED: cannot re-use a name that is still in use\n",
            WrongInput,
            "choose another with --name",
        ),
        (
            'Error: list: failed to list: secrets is forbidden: User "u" cannot list resource "secrets" in API group '
            '"" in the namespace "ns"',
            WrongInput,
            "you may not list secrets in namespace ns, which helm needs; ask",
        ),
        ("Error: release: not found\n", WrongInput, "there is no such release"),
        (
            'Error: cannot patch "j" with kind Job: spec.template: Invalid value: field is immutable',
            WrongInput,
            "uninstall",
        ),
        (
            "Error: Kubernetes cluster unreachable: dial tcp: refused\n",
            JobFailed,
            "helm failed: Kubernetes cluster unrea",
        ),
    ],
)
def test_failure(said, kind, sentence):
    error = helm.failure(said)
    assert type(error) is kind
    assert sentence in str(error)
    assert "\n" not in str(error)


def test_kilobytes_of_objects_are_cut():
    assert len(str(helm.failure("Error: boom " + "x" * 13_000))) < 700


def test_values_reach_helm_by_a_file_that_others_cannot_read():
    with helm.values_file({"a": {"b": 1}}) as path:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert yaml.safe_load(Path(path).read_text()) == {"a": {"b": 1}}
    assert not os.path.exists(path)


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A helm that writes down its arguments and answers with the file `answer`."""
    program = tmp_path / "helm"
    program.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\nhere = pathlib.Path(__file__).parent\n"
        "(here / 'said').open('a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "print((here / 'answer').read_text())\n"
    )
    program.chmod(0o755)
    (tmp_path / "answer").write_text("[]")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.processes
def test_no_value_is_on_helms_command_line(said):
    helm.install(Path("/chart"), AT, {"storage": {"keybase64": "c2VjcmV0"}})
    helm.upgrade(Path("/chart"), AT, {"worker": {"number": 4}})
    lines = (said / "said").read_text().splitlines()
    assert lines[0].startswith("install digits /chart --namespace ns --kube-context ctx -f /")
    assert "--reuse-values" in lines[1]
    assert "c2VjcmV0" not in "".join(lines)
    assert "--wait" not in "".join(lines)


@pytest.mark.processes
def test_a_release_is_found_by_its_whole_name(said):
    assert helm.release(AT) is None
    (said / "answer").write_text('[{"name": "digits", "status": "deployed", "chart": "tfleet-0.1.0"}]')
    assert helm.release(AT)["chart"] == "tfleet-0.1.0"
    assert "--filter ^digits$" in (said / "said").read_text()


@pytest.mark.processes
def test_a_pod_without_a_kubeconfig_names_no_context(said):
    helm.uninstall(Handle("in-cluster", "ns", "digits"), wait=True)
    line = (said / "said").read_text()
    assert "--kube-context" not in line
    assert "--ignore-not-found --wait --cascade foreground" in line
