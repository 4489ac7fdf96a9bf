"""A cluster for the tests: an API server of our own that speaks Kubernetes' real protocol, and a node that really runs pods.

Real are: HTTPS with a certificate and a bearer token, the REST paths with their status objects, watches with positions,
bookmarks and 410, attach over WebSocket in the channel protocols v4 and v5, and what runs in a pod (`node.py`). Each pod that
a client makes is held against the schemas that Kubernetes publishes, as strictly as `kubectl --validate` does. What the
client may do is what the Role in deploy/kubernetes says, what pods may ask for is what its namespace's level
(`restricted`) allows, and whether a pod has a network is what its NetworkPolicy says.

What that proves: that the carrier speaks the protocol, survives its faults, asks for no more than its Role gives, and that what it
puts into pods does its work under the limits that pods have. What it does not: that any given cluster enforces what a pod asks
for. No API server of Kubernetes can be had on the machine that tests this; on a real cluster `doctor` tries each control.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import SHUT_WR
from typing import Any, TypeVar

import kubernetes_validate
import trustme
import yaml
from aiohttp import WSMsgType, web

from atelier_runner.docker_engine import Engine

from .node import Node, pieces

T = TypeVar("T")
Thing = dict[str, Any]
MANIFESTS = Path(__file__).parents[2] / "deploy" / "kubernetes"
NAMESPACE = "atelier-runs"
VERSION = "1.37"
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
# What a client asks to learn what there is; Kubernetes' own begins with it.
DISCOVERY: dict[str, Thing] = {
    "/version": {"major": "1", "minor": VERSION.split(".")[1], "gitVersion": f"v{VERSION}.0"},
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {
        "kind": "APIResourceList", "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "shortNames": ["po"],
             "verbs": ["create", "delete", "get", "list", "watch"]},
            {"name": "pods/attach", "singularName": "", "namespaced": True, "kind": "PodAttachOptions", "verbs": ["create", "get"]},
        ],
    },
}  # fmt: skip
KEPT = 4000
"""Events that a watch can go back to."""


class Refusal(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int = 0) -> None:
        self.code = code
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "code": code,
        }  # fmt: skip
        self.retry_after = retry_after


def manifests() -> Iterator[Thing]:
    """Yield what deploy/kubernetes has."""
    for path in sorted(MANIFESTS.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def manifest(kind: str, namespace: str = NAMESPACE) -> Thing:
    """Return the one of a kind in a namespace, or of that name."""
    (found,) = [
        one
        for one in manifests()
        if one["kind"] == kind and namespace in (one["metadata"].get("namespace"), one["metadata"]["name"])
    ]
    return found


def validated(thing: Thing, version: str = VERSION) -> None:
    """Raise unless a manifest fits the published schema, without a field that it does not know."""
    kubernetes_validate.validate(copy.deepcopy(thing), version, strict=True)


def restricted(pod: Thing) -> list[str]:
    """Return what the Pod Security Standard `restricted` would refuse."""
    spec, wrong = pod["spec"], []
    outer = spec.get("securityContext", {})
    wrong += [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    wrong += [f"volume {volume['name']}" for volume in spec.get("volumes", ()) if not allowed & volume.keys()]
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            wrong.append("allowPrivilegeEscalation != false")
        if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
            wrong.append("unrestricted capabilities")
        if not (own.get("runAsNonRoot") or outer.get("runAsNonRoot")):
            wrong.append("runAsNonRoot != true")
        if own.get("runAsUser", outer.get("runAsUser")) == 0:
            wrong.append("runAsUser=0")
        profile = own.get("seccompProfile", outer.get("seccompProfile", {}))
        if profile.get("type") not in ("RuntimeDefault", "Localhost"):
            wrong.append("seccompProfile")
        if own.get("privileged"):
            wrong.append("privileged")
    return wrong


class Cluster:
    """Runs in a thread of its own. What tests change may be changed from any thread."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._authority = trustme.CA()
        self._folder = folder
        self._token = secrets.token_hex(16)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-cluster", daemon=True)
        self._things: dict[str, dict[str, Thing]] = {"pods": {}, "leases": {}}
        self._position = 100
        self._events: list[tuple[int, str, Thing]] = []
        self._oldest = 100
        self._news = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._lines: set[web.WebSocketResponse] = set()
        self.port = 0
        self.node = Node(engine, self._changed)
        self.rules: list[Thing] = manifest("Role")["rules"]
        self.level = manifest("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        self.policies = [manifest("NetworkPolicy")]
        self.quota: dict[str, int] = {}
        self.runtime_classes = ("gvisor",)
        self.refuse: Callable[[str, str], Refusal | None] = lambda _method, _path: None
        """Called with each request's method and path."""
        self.protocols: tuple[str, ...] = PROTOCOLS
        self.created: list[Thing] = []
        """Every pod that was asked for."""
        self.watches = 0
        """How many watches were begun."""

    def __enter__(self) -> Cluster:
        self._thread.start()
        self.do(self._open())
        self.kubeconfig = self._folder / "kubeconfig"
        self._authority.cert_pem.write_to_path(self._folder / "ca.pem")
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "test",
                    "clusters": [{"name": "test", "cluster": {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self._folder / "ca.pem")}}],
                    "users": [{"name": "runner", "user": {"token": self._token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "runner", "namespace": NAMESPACE}}],
                }
            )
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._shut())
        self.do(self.node.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in the cluster's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    # What tests do to it.

    def pods(self) -> list[Thing]:
        """Return the pods that there are."""
        return list(self._things["pods"].values())

    def leases(self) -> dict[str, Thing]:
        """Return the leases that there are, by name."""
        return dict(self._things["leases"])

    def delete(self, name: str) -> None:
        """Delete a pod, as somebody else would."""
        self.do(self._delete("pods", name))

    def delete_lease(self, name: str) -> None:
        """Delete a lease, as somebody else would."""
        self.do(self._delete("leases", name))

    def put(self, kind: str, thing: Thing) -> None:
        """Put a thing there, as somebody else would."""
        self.do(self._put(kind, thing))

    def set_status(self, name: str, **status: Any) -> None:
        """Change what a pod's status says."""

        async def change() -> None:
            pod = self._things["pods"][name]
            pod["status"].update(status)
            await self._changed(pod)

        self.do(change())

    def forget_history(self) -> None:
        """Make every position too old, and end the watches."""

        async def forget() -> None:
            async with self._news:
                self._position += 10
                self._events.clear()
                self._oldest = self._position
                self._news.notify_all()

        self.do(forget())

    def break_attached(self) -> None:
        """Cut every attached stream."""

        async def cut() -> None:
            for line in list(self._lines):
                transport = line.get_extra_info("socket")
                assert transport is not None
                request = line._req
                assert request is not None
                assert request.transport is not None
                request.transport.abort()

        self.do(cut())

    def restart(self, seconds: float = 0.0) -> None:
        """End the API server with all its connections, and start it again on the same port. What is stored stays."""
        self.do(self._shut())
        time.sleep(seconds)
        self.do(self._open())

    # The server.

    async def _open(self) -> None:
        app = web.Application(middlewares=[self._answered])
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
        for path, answer in DISCOVERY.items():
            app.router.add_get(path, functools.partial(self._discover, answer))
        for path, kind in ((pods, "pods"), (leases, "leases")):
            app.router.add_get(path, functools.partial(self._list, kind))
            app.router.add_post(path, functools.partial(self._create, kind))
            app.router.add_get(path + "/{name}", functools.partial(self._get, kind))
            app.router.add_patch(path + "/{name}", functools.partial(self._patch, kind))
            app.router.add_delete(path + "/{name}", functools.partial(self._remove, kind))
        app.router.add_get(pods + "/{name}/attach", self._attach)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert("127.0.0.1", "cluster.test").configure_cert(context)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _shut(self) -> None:
        assert self._runner is not None
        server = self._runner.server
        for connection in list(getattr(server, "connections", ())):
            if connection.transport is not None:
                connection.transport.abort()
        await self._runner.cleanup()

    @web.middleware
    async def _answered(self, request: web.Request, handler: Any) -> web.StreamResponse:
        try:
            if request.headers.get("Authorization") != f"Bearer {self._token}":
                raise Refusal(401, "Unauthorized", "Unauthorized")
            if (refusal := self.refuse(request.method, request.path)) is not None:
                raise refusal
            self._authorize(request)
            response: web.StreamResponse = await handler(request)
            return response
        except Refusal as refusal:
            headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
            return web.json_response(refusal.status, status=refusal.code, headers=headers)
        except ConnectionError:  # whoever asked has gone
            return web.Response(status=499)
        except web.HTTPNotFound:
            status = Refusal(404, "NotFound", "the server could not find the requested resource").status
            return web.json_response(status, status=404)

    def _authorize(self, request: web.Request) -> None:
        """Allow what the Role allows."""
        if request.path in DISCOVERY:
            return
        parts = request.path.strip("/").split("/")
        group = parts[1] if parts[0] == "apis" else ""
        after = parts[parts.index("namespaces") + 2 :]
        resource = "/".join([after[0], *after[2:]])
        verb = {
            "POST": "create",
            "PATCH": "patch",
            "DELETE": "delete",
            "GET": "get" if len(after) > 1 else "list",
        }[request.method]
        wanted = {"watch" if verb == "list" and request.query.get("watch") == "true" else verb}
        if resource == "pods/attach":
            wanted = {"get", "create"}
        for need in wanted:
            if not any(
                group in rule["apiGroups"] and resource in rule["resources"] and need in rule["verbs"]
                for rule in self.rules
            ):
                raise Refusal(
                    403, "Forbidden",
                    f'{resource} is forbidden: User "system:serviceaccount:atelier:atelier-runner" cannot {need} resource '
                    f'"{resource}" in API group "{group}" in the namespace "{NAMESPACE}"',
                )  # fmt: skip

    async def _discover(self, answer: Thing, _: web.Request) -> web.Response:
        return web.json_response(answer)

    def _selected(self, kind: str, request: web.Request) -> Callable[[Thing], bool]:
        wanted = dict(part.split("=") for part in request.query.get("labelSelector", "").split(",") if part)
        return lambda thing: wanted.items() <= thing["metadata"].get("labels", {}).items()

    async def _list(self, kind: str, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") == "true":
            return await self._watch(kind, request)
        chosen = self._selected(kind, request)
        items = [thing for thing in self._things[kind].values() if chosen(thing)]
        name, version = {"pods": ("PodList", "v1"), "leases": ("LeaseList", "coordination.k8s.io/v1")}[kind]
        return web.json_response(
            {
                "kind": name,
                "apiVersion": version,
                "metadata": {"resourceVersion": str(self._position)},
                "items": items,
            }
        )

    async def _watch(self, kind: str, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        chosen = self._selected(kind, request)
        position = int(request.query.get("resourceVersion") or self._position)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)

        async def say(event: str, thing: Thing) -> None:
            await response.write(json.dumps({"type": event, "object": thing}).encode() + b"\n")

        bookmark = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": ""}}
        until = time.monotonic() + float(request.query.get("timeoutSeconds", "60"))
        while time.monotonic() < until:
            if position < self._oldest:
                gone = Refusal(
                    410, "Expired", f"too old resource version: {position} ({self._oldest})"
                ).status
                await say("ERROR", gone)
                break
            for at, event, thing in [one for one in self._events if one[0] > position]:
                position = at
                if thing["kind"] == ("Pod" if kind == "pods" else "Lease") and chosen(thing):
                    await say(event, thing)
            try:
                async with asyncio.timeout(2), self._news:
                    while self._position <= position:
                        await self._news.wait()
            except TimeoutError:
                bookmark["metadata"] = {"resourceVersion": str(position)}
                await say("BOOKMARK", bookmark)
        return response

    async def _say(self, event: str, thing: Thing) -> None:
        async with self._news:
            self._position += 1
            thing["metadata"]["resourceVersion"] = str(self._position)
            self._events.append((self._position, event, copy.deepcopy(thing)))
            if len(self._events) > KEPT:
                self._oldest = self._events.pop(0)[0]
            self._news.notify_all()

    async def _changed(self, pod: Thing) -> None:
        if self._things["pods"].get(pod["metadata"]["name"]) is pod:
            await self._say("MODIFIED", pod)

    async def _get(self, kind: str, request: web.Request) -> web.Response:
        return web.json_response(self._found(kind, request.match_info["name"]))

    def _found(self, kind: str, name: str) -> Thing:
        if (thing := self._things[kind].get(name)) is None:
            raise Refusal(404, "NotFound", f'{kind} "{name}" not found')
        return thing

    async def _create(self, kind: str, request: web.Request) -> web.Response:
        thing: Thing = await request.json()
        name = thing["metadata"]["name"]
        try:
            validated(thing)
        except kubernetes_validate.ValidationError as error:
            raise Refusal(422, "Invalid", f'{thing["kind"]} "{name}" is invalid: {error.message}') from error
        if kind == "pods":
            self.created.append(copy.deepcopy(thing))
            self._admit(thing)
        if name in self._things[kind]:
            raise Refusal(409, "AlreadyExists", f'{kind} "{name}" already exists')
        await self._put(kind, thing)
        return web.json_response(thing, status=201)

    async def _put(self, kind: str, thing: Thing) -> None:
        metadata = thing["metadata"]
        metadata.update(uid=secrets.token_hex(8), namespace=NAMESPACE)
        metadata["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._things[kind][metadata["name"]] = thing
        if kind == "pods":
            thing["spec"].pop("hostUsers", None)  # as one does whose nodes cannot
            thing.setdefault("status", {"phase": "Pending", "qosClass": "Guaranteed"})
        await self._say("ADDED", thing)
        if kind == "pods" and thing["status"]["phase"] == "Pending":
            self.node.take(thing, network=not self._cut_off(thing))

    def _admit(self, pod: Thing) -> None:
        """Do as the admission of a cluster does: quota, RuntimeClass, the namespace's level."""
        name, spec = pod["metadata"]["name"], pod["spec"]
        if (most := self.quota.get("pods")) is not None and len(self._things["pods"]) >= most:
            raise Refusal(
                403, "Forbidden",
                f'pods "{name}" is forbidden: exceeded quota: runs, requested: pods=1, used: pods={most}, limited: pods={most}',
            )  # fmt: skip
        if (wanted := spec.get("runtimeClassName")) is not None and wanted not in self.runtime_classes:
            raise Refusal(
                403, "Forbidden", f'pods "{name}" is forbidden: pod rejected: RuntimeClass "{wanted}" not found'
            )  # fmt: skip
        if self.level == "restricted" and (wrong := restricted(pod)):
            raise Refusal(
                403, "Forbidden",
                f'pods "{name}" is forbidden: violates PodSecurity "restricted:latest": {", ".join(wrong)}',
            )  # fmt: skip

    def _cut_off(self, pod: Thing) -> bool:
        """Say whether a policy for this pod allows nothing in and out."""
        labels = pod["metadata"].get("labels", {})
        return any(
            policy["spec"]["podSelector"].get("matchLabels", {}).items() <= labels.items()
            and {"Ingress", "Egress"} <= set(policy["spec"]["policyTypes"])
            and not policy["spec"].get("ingress")
            and not policy["spec"].get("egress")
            for policy in self.policies
        )

    async def _patch(self, kind: str, request: web.Request) -> web.Response:
        thing = self._found(kind, request.match_info["name"])
        if request.content_type != "application/merge-patch+json":
            raise Refusal(415, "UnsupportedMediaType", f"the body is {request.content_type}")
        patch = await request.json()
        assert patch.keys() == {"spec"}
        thing["spec"].update(patch["spec"])
        validated(thing)
        await self._say("MODIFIED", thing)
        return web.json_response(thing)

    async def _remove(self, kind: str, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        thing = self._found(kind, name)
        if kind == "pods":
            body = await request.json()
            assert body["gracePeriodSeconds"] == 0
        await self._delete(kind, name)
        return web.json_response(thing)

    async def _delete(self, kind: str, name: str) -> None:
        thing = self._things[kind].pop(name, None)
        if thing is None:
            return
        await self._say("DELETED", thing)
        if kind == "pods":
            dropping = asyncio.create_task(self.node.drop(name), name=f"drop-{name}")
            self._dropping = dropping

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        pod = self._found("pods", request.match_info["name"])
        container = pod["spec"]["containers"][0]["name"]
        wanted = {key for key in ("stdin", "stdout", "stderr", "tty") if request.query.get(key) == "true"}
        if request.query.get("container", container) != container or wanted != {"stdin", "stdout", "stderr"}:
            raise Refusal(400, "BadRequest", f"unable to upgrade connection: {dict(request.query)}")
        stream = self.node.stream(pod["metadata"]["name"])
        if stream is None:
            raise Refusal(
                400, "BadRequest", f"container {container} in pod {pod['metadata']['name']} is not available"
            )
        line = web.WebSocketResponse(protocols=self.protocols, max_msg_size=32 << 20)
        await line.prepare(request)
        if line.ws_protocol not in self.protocols:
            await line.close()
            return line
        self._lines.add(line)
        await line.send_bytes(b"\1")  # says that it is there
        name = pod["metadata"]["name"]
        out = asyncio.create_task(self._carry_out(stream, line), name="attach-out")
        out.add_done_callback(lambda _: self.node.hint(name))
        loop = asyncio.get_running_loop()
        try:
            async for message in line:
                if message.type is not WSMsgType.BINARY:
                    continue
                if message.data[:1] == b"\0":
                    await loop.sock_sendall(stream, message.data[1:])
                elif message.data == b"\xff\0" and line.ws_protocol == "v5.channel.k8s.io":
                    stream.shutdown(SHUT_WR)
        except OSError:
            pass
        finally:
            self._lines.discard(line)
            out.cancel()
            await asyncio.gather(out, return_exceptions=True)
            stream.close()  # and with it the container's standard input, which was opened once
        return line

    async def _carry_out(self, stream: Any, line: web.WebSocketResponse) -> None:
        try:
            async for kind, data in pieces(stream):
                for start in range(0, len(data), 32768):
                    await line.send_bytes(bytes([kind]) + data[start : start + 32768])
            if line.ws_protocol == "v5.channel.k8s.io":
                await line.send_bytes(b"\xff\1")
            await line.send_bytes(b"\3" + json.dumps({"metadata": {}, "status": "Success"}).encode())
            await line.close()
        except OSError:
            pass


@contextmanager
def cluster(socket: str, folder: Path) -> Iterator[Cluster]:
    """Start a cluster whose node is the Docker engine at a socket."""
    engine = Engine(socket)
    try:
        with Cluster(engine, folder) as started:
            yield started
    finally:
        engine.close()
