"""What the chart says of itself, and what goes into its package."""

from __future__ import annotations

import base64
import re
import tarfile

import yaml
from chart_cases import objects
from chart_renders import CHART, Object, attempt, helm, names, one, pods
from chart_renders import objects as render
from helm_program import needs_helm

pytestmark = needs_helm


def about() -> Object:
    return yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))


def test_an_older_kubernetes_is_refused():
    done = attempt({}, "digits", flags=("--kube-version", "1.30.9"))
    assert done.returncode != 0
    assert "chart requires kubeVersion: >=1.31" in done.stderr
    for version in ("1.31.0", "1.31.4-gke.1200", "1.40.0"):
        assert attempt({}, "digits", flags=("--kube-version", version)).returncode == 0, version


def test_the_version_of_the_application_is_the_packages():
    from tfleet import __version__

    assert about()["appVersion"] == __version__
    (main,) = pods(render())["Job/digits-worker"]["spec"]["containers"]
    assert main["image"] == f"tfleet-worker:{__version__}"


def test_artifact_hub_is_told_the_images_that_are_used():
    annotations = about()["annotations"]
    told = {each["image"] for each in yaml.safe_load(annotations["artifacthub.io/images"])}
    values = {"serving": {"enabled": True}, "tensorboard": {"enabled": True}}
    used = {pod["spec"]["containers"][0]["image"] for pod in pods(render(values)).values()}
    assert told == used
    assert yaml.safe_load(annotations["artifacthub.io/changes"])


def test_the_icon_is_in_the_chart_itself():
    head, _, picture = about()["icon"].partition(",")
    assert head == "data:image/svg+xml;base64"
    assert b"<svg" in base64.b64decode(picture, validate=True)


def test_an_upgrade_does_not_train_again_what_has_ended_and_is_gone():
    def jobs(values: Object) -> list[str]:
        done = attempt(values, "digits", flags=("--is-upgrade",))
        found = [each for each in yaml.safe_load_all(done.stdout) if each]
        return [name for name in names(found) if name.startswith("Job/")]

    assert jobs({"ttlSecondsAfterFinished": 60}) == [], "no Job is there, so it has ended and its time is over"
    assert jobs({}) == ["Job/digits-ps", "Job/digits-worker"]


def test_the_token_is_32_random_bytes():
    secret = one(objects("default"), "Secret", "digits-token")
    assert re.fullmatch(r"[0-9a-f]{64}", base64.b64decode(secret["data"]["token"]).decode())


def test_the_package_holds_what_an_install_needs(tmp_path):
    done = helm("package", str(CHART), "--destination", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as files:
        held = {name.removeprefix("tfleet/") for name in files.getnames()}
        data = files.extractfile("tfleet/values.schema.json")
        assert data is not None
        schema = data.read().decode()
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "templates/jobs.yaml"} <= held
    assert schema == (CHART / "values.schema.json").read_text(encoding="utf-8")
    done = helm("template", "digits", str(package), "--kube-version", "1.34.0")
    assert done.returncode == 0, done.stderr
