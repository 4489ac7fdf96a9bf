"""What is in deploy/kubernetes, and what the carrier asks a cluster for: held against the schemas that Kubernetes publishes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from atelier_runner import (
    Limits,
    open_backend,
)
from atelier_runner.kubernetes_carrier import KubernetesCarrier
from atelier_runner.kubernetes_pod import RUNNER_LABEL, Recipe, checked, payload
from atelier_runner.kubernetes_pod import manifest as pod_of
from tests.cluster import Cluster, manifest, manifests, restricted, validated

from .finished import finished
from .over_cluster import LIMITS, opened, python


@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_every_manifest_fits_the_published_schemas(version: str) -> None:
    found = list(manifests())
    assert {one["kind"] for one in found} == {
        "Deployment", "Namespace", "NetworkPolicy", "ResourceQuota", "Role", "RoleBinding", "Service", "ServiceAccount",
    }  # fmt: skip
    for one in found:
        validated(one, version)
        with pytest.raises(kubernetes_validate.ValidationError):
            validated({**one, "made-up": 1}, version)


def test_the_runner_s_own_pod_is_as_restricted_and_its_words_are_the_command_line_s() -> None:
    pod = manifest("Deployment", "atelier")["spec"]["template"]
    assert restricted(pod) == []
    (container,) = pod["spec"]["containers"]
    assert container["command"][:4] == ["python", "-m", "atelier_runner", "serve"]
    binding = manifest("RoleBinding")
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": pod["spec"]["serviceAccountName"], "namespace": "atelier"}
    ]
    assert binding["roleRef"]["name"] == manifest("Role")["metadata"]["name"]


@pytest.mark.docker
@pytest.mark.kubernetes
async def test_the_deployment_s_address_is_one_that_can_be_opened(there: Cluster) -> None:
    (container,) = manifest("Deployment", "atelier")["spec"]["template"]["spec"]["containers"]
    address = container["command"][container["command"].index("--carrier") + 1]
    images = str(there.kubeconfig.with_name("images.json"))
    address = address.replace("/etc/atelier/images.json", images) + f"&kubeconfig={there.kubeconfig}"
    async with open_backend(address, limits=LIMITS, pool_size=0) as backend:
        carrier = backend._carrier
        assert isinstance(carrier, KubernetesCarrier)
        assert carrier._images["python"] == "registry.example.org/atelier/python:1"


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"runtime_class": "gvisor", "seccomp": "atelier/runner.json", "cpu": "500m", "host_users": True},
        {
            "template": {
                "metadata": {"labels": {"team": "a"}, "annotations": {"b": "c"}},
                "spec": {
                    "nodeSelector": {"pool": "runs"},
                    "tolerations": [{"key": "runs", "operator": "Exists", "effect": "NoSchedule"}],
                    "imagePullSecrets": [{"name": "pull"}],
                    "priorityClassName": "low",
                },
            }
        },
    ],
)
def test_each_pod_fits_the_schemas_and_keeps_its_program_in(version: str, more: dict[str, Any]) -> None:
    pod = pod_of("x", "python", "i", 12345, Limits(), Recipe("r", payload(), **more))
    validated(pod, version)
    assert restricted(pod) == []
    spec, (program,) = pod["spec"], pod["spec"]["containers"]
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"
    assert spec["hostUsers"] is more.get("host_users", False)
    assert program["resources"]["limits"] == program["resources"]["requests"]
    assert program["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(volume["emptyDir"].keys() == {"medium", "sizeLimit"} for volume in spec["volumes"])
    assert spec.get("runtimeClassName") == more.get("runtime_class")
    assert pod["metadata"]["labels"][RUNNER_LABEL] == "r"
    for name, value in more.get("template", {}).get("spec", {}).items():
        assert spec[name] == value


@pytest.mark.parametrize(
    "template",
    [
        [],
        {"spec": {"hostNetwork": True}},
        {"spec": {"containers": []}},
        {"spec": {"securityContext": {}}},
        {"spec": {"automountServiceAccountToken": True}},
        {"metadata": {"name": "x"}},
        {"status": {}},
    ],
)
def test_a_template_cannot_open_what_keeps_programs_in(template: object) -> None:
    with pytest.raises(ValueError, match="a pod template"):
        checked(template)


@pytest.mark.docker
@pytest.mark.kubernetes
async def test_a_template_reaches_the_pods(there: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("metadata: {labels: {team: a}}\nspec: {nodeSelector: {pool: runs}}\n")
    async with opened(there, template=str(path)) as backend:
        assert (await finished(backend, python("print(1)")))[0] == b"1\n"
        assert there.created[-1]["spec"]["nodeSelector"] == {"pool": "runs"}
        assert there.created[-1]["metadata"]["labels"]["team"] == "a"
