"""The pod of one sandbox: what the cluster is asked for.

Everything that keeps a program in is said here and cannot be said otherwise; an administrator's template adds only where
pods go and what marks them (`OPEN`). Files live in memory of a fixed size, the root is read-only, the user is one that no
other pod of this runner has, and no account, service or name server of the cluster is to be found.
"""

from __future__ import annotations

import marshal
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atelier_runner.agent import AGENT, FOLDER, inside
from atelier_runner.bubblewrap import ENVIRONMENT, HOST_NAME, SHM_BYTES, WORK
from atelier_runner.model import MIB, Limits
from atelier_runner.seccomp import compile_filter
from atelier_runner.syscalls import ARCHITECTURES

CONTAINER = "program"
RUNNER_LABEL = "atelier.runner"
"""Which runner a pod belongs to: the name of its lease."""
LANGUAGE_LABEL = "atelier.language"
AGENT_BYTES = MIB
SCRATCH_BYTES = 16 * MIB
"""Of a node's disk, where nothing of it can be written but a container's logs."""
FIRST_UID, LAST_UID = 10_000, 65_000
WAIT_SECONDS = 3600.0
"""How long a pod may wait for a run; then another takes its place."""
DEADLINE_SECONDS = 26 * 3600
"""A wait and the longest run: what the cluster ends by itself, whatever becomes of the runner."""
OPEN = ("affinity", "imagePullSecrets", "nodeSelector", "priorityClassName", "schedulerName", "tolerations",
        "topologySpreadConstraints")  # fmt: skip
"""Fields of a pod that a template may set; beside them `metadata.labels` and `metadata.annotations`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What every pod of this runner is made with."""

    runner: str
    """The name of its lease."""
    payload: bytes
    """What the agent's entrance reads from its standard input; see `payload`."""
    runtime_class: str = ""
    cpu: str = "1"
    seccomp: str = ""
    """A profile on the nodes (`localhostProfile`); empty: the runtime's own. The agent takes ours upon itself in any case."""
    host_users: bool = False
    """Whether pods share the node's users; without, the cluster is asked for a user namespace."""
    template: Mapping[str, Any] = field(default_factory=dict)


def payload(agent: bytes | None = None) -> bytes:
    """Return all that a pod is given: the entrance's source, the agent's files, the filter for each machine type."""
    files = inside(agent)
    entrance = Path(__file__).with_name("agent") / "entrance.py"
    filters = {name: compile_filter(architecture) for name, architecture in ARCHITECTURES.items()}
    found = {"entrance": entrance.read_bytes(), "files": files, "filters": filters, "agent": AGENT}
    return marshal.dumps(found)


def command(size: int) -> list[str]:
    """Return what is process 1 at first: it reads so many bytes, and enters."""
    line = (
        f"import marshal,os\ns=b''\nwhile len(s)<{size}:\n p=os.read(0,{size}-len(s))\n p or os._exit(0)\n s+=p\n"
        "s=marshal.loads(s)\nn={}\nexec(compile(s['entrance'],'entrance','exec'),n)\nn['enter'](s)"
    )
    return ["python3", "-c", line]


def checked(template: object) -> dict[str, Any]:
    """Return a template that says only what it may.

    Raises:
        ValueError: it says more, or is no pod.
    """
    if not isinstance(template, dict):
        raise ValueError("a pod template is a table with `metadata` and `spec`")
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    wrong = [name for name in template if name not in ("apiVersion", "kind", "metadata", "spec")]
    wrong += [f"metadata.{name}" for name in metadata if name not in ("labels", "annotations")]
    wrong += [f"spec.{name}" for name in spec if name not in OPEN]
    if wrong:
        raise ValueError(
            f"a pod template may set metadata.labels, metadata.annotations and {', '.join(f'spec.{name}' for name in OPEN)}; "
            f"not {', '.join(wrong)}"
        )
    return {"metadata": metadata, "spec": spec}


def user(taken: Collection[int]) -> int:
    """Return a user id that no other pod of this runner has at this moment."""
    while (uid := FIRST_UID + secrets.randbelow(LAST_UID - FIRST_UID)) in taken:
        pass
    return uid


def manifest(
    name: str, language: str, image: str, uid: int, limits: Limits, recipe: Recipe
) -> dict[str, Any]:
    """Return one pod."""
    metadata, spec = recipe.template.get("metadata", {}), recipe.template.get("spec", {})
    profile = (
        {"type": "Localhost", "localhostProfile": recipe.seccomp}
        if recipe.seccomp
        else {"type": "RuntimeDefault"}
    )
    quantities = {
        "cpu": recipe.cpu,
        "memory": f"{limits.memory_mb}Mi",
        "ephemeral-storage": f"{SCRATCH_BYTES // MIB}Mi",
    }
    disk = limits.disk_mb * MIB
    folders = {
        "work": (WORK, disk),
        "tmp": ("/tmp", disk),
        "agent": (FOLDER, AGENT_BYTES),
        "shm": ("/dev/shm", SHM_BYTES),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                **metadata.get("labels", {}),
                "app.kubernetes.io/name": "atelier-run",
                "app.kubernetes.io/managed-by": "atelier-runner",
                RUNNER_LABEL: recipe.runner,
                LANGUAGE_LABEL: language,
            },
            "annotations": dict(metadata.get("annotations", {})),
        },
        "spec": {
            **spec,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostUsers": recipe.host_users,
            "hostname": HOST_NAME,
            # A name server that does not answer: there is nothing to be asked.
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["127.0.0.1"]},
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": uid, "runAsGroup": uid, "fsGroup": uid,
                "seccompProfile": profile,
            },
            **({"runtimeClassName": recipe.runtime_class} if recipe.runtime_class else {}),
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": command(len(recipe.payload)),
                    "env": [{"name": key, "value": value} for key, value in ENVIRONMENT.items()],
                    "workingDir": WORK,
                    "stdin": True, "stdinOnce": True, "tty": False,
                    "resources": {"limits": quantities, "requests": quantities},
                    "securityContext": {
                        "allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True,
                        "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": key, "mountPath": path} for key, (path, _) in folders.items()],
                }
            ],
            "volumes": [
                {"name": key, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
                for key, (_, size) in folders.items()
            ],
        },
    }  # fmt: skip
