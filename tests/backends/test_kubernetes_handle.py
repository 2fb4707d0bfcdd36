"""Handles, names, contexts."""

import pytest

from tfleet.backends.kubernetes import kubeconfig
from tfleet.backends.kubernetes.handle import Handle, is_handle, release_name
from tfleet.spec.errors import WrongInput


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("k8s://kind/default/digits", ("kind", "default", "digits")),
        ("k8s://arn:aws:eks:eu:1:cluster/prod/ml/digits", ("arn:aws:eks:eu:1:cluster/prod", "ml", "digits")),
    ],
)
def test_a_handle_is_read_as_it_was_written(text, parts):
    handle = Handle.parse(text)
    assert (handle.context, handle.namespace, handle.release) == parts
    assert str(handle) == text
    assert is_handle(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("k8s://kind/digits", r"did you mean 'k8s://kind/default/digits'\?; give the one that train printed"),
        ("k8s://", "not of the form k8s://CONTEXT/NAMESPACE/RELEASE"),
        ("k8s:/kind/default/digits", "not of the form"),
        ("k8s://kind/Default/digits", "cannot be a namespace.*did you mean 'default'"),
        ("k8s://kind/default/2digits", "will not do for a release.*such as 'digits'"),
    ],
)
def test_a_malformed_handle_is_refused(text, sentence):
    with pytest.raises(WrongInput, match=sentence):
        Handle.parse(text)


def test_a_folder_is_no_handle():
    assert not is_handle("runs/k8s")


@pytest.mark.parametrize(
    ("text", "name"), [("My task_2", "my-task-2"), ("3d", "d"), ("!", "job"), ("x" * 99, "x" * 45)]
)
def test_release_name(text, name):
    assert release_name(text) == name


@pytest.fixture
def environ(tmp_path):
    (tmp_path / "one").write_text(
        "current-context: kind\ncontexts:\n- {name: kind, context: {cluster: k, namespace: ml}}\n"
        "- {name: prod, context: {cluster: p}}\n"
    )
    (tmp_path / "two").write_text("current-context: other\ncontexts:\n- {name: other, context: {cluster: o}}\n")
    return {"KUBECONFIG": f"{tmp_path / 'one'}:{tmp_path / 'missing'}:{tmp_path / 'two'}"}


@pytest.mark.parametrize(
    ("context", "namespace", "chosen"),
    [
        ("", "", ("kind", "ml")),
        ("", "x", ("kind", "x")),
        ("prod", "", ("prod", "default")),
        ("other", "", ("other", "default")),
        ("unknown", "given", ("unknown", "given")),
    ],
)
def test_context_and_namespace(environ, tmp_path, context, namespace, chosen):
    assert kubeconfig.choose(context, namespace, environ, tmp_path / "no-account") == chosen


def test_an_unknown_context_is_refused_with_the_nearest(environ, tmp_path):
    with pytest.raises(
        WrongInput, match=r"'prd' is not in the kubeconfig \(did you mean 'prod'\?\); choose with --con"
    ):
        kubeconfig.choose("prd", "", environ, tmp_path / "no-account")


def test_without_a_kubeconfig(tmp_path):
    with pytest.raises(WrongInput, match=r"no kubeconfig with a context.*set KUBECONFIG"):
        kubeconfig.choose("", "", {"KUBECONFIG": str(tmp_path / "none")}, tmp_path / "no-account")
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t")
    (account / "namespace").write_text("ml\n")
    assert kubeconfig.choose("", "", {"KUBECONFIG": str(tmp_path / "none")}, account) == ("in-cluster", "ml")


def test_a_kubeconfig_that_is_not_yaml(tmp_path):
    (tmp_path / "bad").write_text("a: [")
    with pytest.raises(WrongInput, match="is not YAML"):
        kubeconfig.choose("", "", {"KUBECONFIG": str(tmp_path / "bad")}, tmp_path)
