"""What the runner asks of a Kubernetes API server, and the only module that touches the kubernetes_asyncio package.

The package is optional (`pip install 'atelier-runner[kubernetes]'`) and costs half a second to import, so it is imported
when a cluster is opened. It finds the server and the credentials (a pod's service account, or a kubeconfig) and renews
them; the requests are plain JSON over its connections, since its models are slow and know only their own version.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atelier_runner.errors import SandboxUnavailable

INSTALL_HINT = "Install the package: pip install 'atelier-runner[kubernetes]'"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CALL_SECONDS = 30
WATCH_SECONDS = 60
"""After that the server ends a watch, and it is asked again; one that says nothing for longer is dead."""
CONNECTIONS = 1024
"""At once: each waiting and each running pod has one."""
PAUSES = (0.2, 0.5, 1.0, 2.0)
"""Between attempts, while the server does not answer or asks to wait."""
LONGEST_PAUSE = 5.0
AGAIN = (0, 429, 502, 503, 504)
MOST_LINE = 4 << 20
"""Bytes of one event of a watch; etcd keeps nothing larger than a third of that."""
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")

log = logging.getLogger("atelier_runner")


class ApiRefused(Exception):
    """The server answered with an error, in its own words; `status` is 0 when it did not answer at all."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Where:
    """Which cluster is meant, and how to get in. Without `kubeconfig` the pod's own account, else the usual kubeconfig."""

    namespace: str = ""
    kubeconfig: str = ""
    context: str = ""


class Api:
    """One API server and one namespace of it. Opened by `open_api`."""

    def __init__(self, client: Any, namespace: str, renew: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._renewing = asyncio.create_task(_renew(renew), name="cluster-credentials")
        self._aiohttp = importlib.import_module("aiohttp")
        self.namespace = namespace
        self.address: str = client.configuration.host
        self._ahead = timedelta()

    def now(self) -> datetime:
        """Return the server's time, as far as its last answer tells."""
        return datetime.now(UTC) + self._ahead

    async def endpoint(self) -> tuple[str, int]:
        """Return the server's address and port, as one must name them where there are no names."""
        parts = urlsplit(self.address)
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
        with contextlib.suppress(OSError):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
            host = str(found[0][4][0])
        return host, port

    def pods(self, name: str = "", part: str = "") -> str:
        """Return the path of this namespace's pods, or of one."""
        return "/".join(filter(None, (f"/api/v1/namespaces/{self.namespace}/pods", name, part)))

    def leases(self, name: str = "") -> str:
        """Return the path of this namespace's leases, or of one."""
        group = "/apis/coordination.k8s.io/v1"
        return "/".join(filter(None, (f"{group}/namespaces/{self.namespace}/leases", name)))

    async def _head(self) -> dict[str, str]:
        try:
            settings = await self._client.configuration.auth_settings()
        except Exception as error:  # whatever renews them: a file, a program, somebody's server
            raise ApiRefused(0, "Credentials", f"the credentials cannot be renewed: {error}") from error
        return {
            setting["key"]: setting["value"]
            for setting in settings.values()
            if setting["in"] == "header" and setting["value"]
        }

    def _way(self) -> dict[str, Any]:
        """Return how connections are made."""
        settings = self._client.configuration
        named = {"server_hostname": settings.tls_server_name} if settings.tls_server_name else {}
        return {"proxy": settings.proxy, "proxy_headers": settings.proxy_headers, **named}

    async def ask(
        self, method: str, path: str, *, body: object = None, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Send one request and return the answer's JSON; asks again while the server does not answer or wants one to wait.

        Raises:
            ApiRefused: it answered with an error, or not in time.
        """
        pauses = list(PAUSES)
        while True:
            try:
                return await self._ask(method, path, body, params or {})
            except ApiRefused as refused:
                if refused.status not in AGAIN or not pauses:
                    raise
                wait = max(pauses.pop(0), min(refused.retry_after, LONGEST_PAUSE))
            await asyncio.sleep(wait)

    async def _ask(self, method: str, path: str, body: object, params: Mapping[str, str]) -> dict[str, Any]:
        timeout = self._aiohttp.ClientTimeout(total=CALL_SECONDS)
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            async with self._client.rest_client.pool_manager.request(
                method, self.address + path, headers={**await self._head(), "Content-Type": kind}, params=params,
                timeout=timeout, data=None if body is None else json.dumps(body), **self._way(),
            ) as answer:  # fmt: skip
                if date := answer.headers.get("Date"):
                    self._ahead = parsedate_to_datetime(date) - datetime.now(UTC)
                content = await answer.read()
                if answer.status >= 400:
                    raise _refusal(answer.status, content, answer.headers.get("Retry-After", ""))
        except (self._aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiRefused(0, "Unreachable", str(error) or type(error).__name__) from error
        return _object(content)

    async def watch(self, path: str, params: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of one watch until the server ends it.

        Raises:
            ApiRefused: 410 when its position is too old; else as `ask`.
        """
        timeout = self._aiohttp.ClientTimeout(
            total=None, sock_connect=CALL_SECONDS, sock_read=WATCH_SECONDS + 15
        )
        asked = {
            **params, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS),
        }  # fmt: skip
        try:
            async with self._client.rest_client.pool_manager.get(
                self.address + path, headers=await self._head(), params=asked, timeout=timeout,
                read_bufsize=MOST_LINE, **self._way(),
            ) as answer:  # fmt: skip
                if answer.status >= 400:
                    raise _refusal(answer.status, await answer.read(), "")
                while line := await answer.content.readline():
                    event = _object(line)
                    found = event.get("object") or {}
                    if event.get("type") == "ERROR":
                        raise ApiRefused(
                            int(found.get("code") or 500),
                            str(found.get("reason", "")),
                            str(found.get("message", "")),
                        )
                    yield event
        except (self._aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiRefused(0, "Unreachable", str(error) or type(error).__name__) from error

    async def attach(self, pod: str, container: str) -> Any:
        """Return a WebSocket to a running container's standard streams.

        Raises:
            ApiRefused: the server refused, for instance because the container does not run.
        """
        params = {"container": container, "stdin": "true", "stdout": "true", "stderr": "true", "tty": "false"}
        try:
            return await self._client.rest_client.pool_manager.ws_connect(
                self.address + self.pods(pod, "attach"), headers=await self._head(), params=params,
                protocols=PROTOCOLS, max_msg_size=MOST_LINE, **self._way(),
            )  # fmt: skip
        except self._aiohttp.WSServerHandshakeError as error:
            raise ApiRefused(error.status, "Handshake", f"attach was answered with {error.status}") from error
        except (self._aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiRefused(0, "Unreachable", str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """Close every connection."""
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)
        await self._client.close()


def _refusal(status: int, content: bytes, retry_after: str) -> ApiRefused:
    said = _object(content)
    wait = float(retry_after) if retry_after.isdecimal() else 0.0
    return ApiRefused(
        status, str(said.get("reason", "")), str(said.get("message") or f"status {status}"), wait
    )


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


async def _nothing() -> None:
    """Renew what does not run out, or is read anew each time."""


async def _renew(renew: Callable[[], Awaitable[None]]) -> None:
    """Renew credentials that a program hands out, for as long as there is anything to renew."""
    while True:
        try:
            return await renew()
        except Exception as error:  # of whatever program it is; the next attempt is a minute later
            log.warning("The credentials of the cluster were not renewed: %s", error)


async def open_api(where: Where) -> Api:
    """Find the cluster and make sure that it answers.

    Raises:
        SandboxUnavailable: the package is missing, there is no configuration, or no server answers.
    """
    try:
        config = await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.config")
        client = await asyncio.to_thread(importlib.import_module, "kubernetes_asyncio.client")
    except ImportError as error:
        raise SandboxUnavailable("The kubernetes_asyncio package is missing.", hint=INSTALL_HINT) from error
    settings = client.Configuration()
    settings.connection_pool_maxsize = CONNECTIONS
    namespace, renew = where.namespace, _nothing
    try:
        if not where.kubeconfig and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(
                client_configuration=settings,
                token_filename=str(ACCOUNT / "token"),
                cert_filename=str(ACCOUNT / "ca.crt"),
            )
            namespace = namespace or (ACCOUNT / "namespace").read_text().strip()
        else:
            loader = await config.load_kube_config(
                where.kubeconfig or None, where.context or None, settings, persist_config=False
            )
            renew = partial(config.refresh_token, loader, settings)
            current = loader.current_context or {}
            namespace = namespace or (current.get("context") or {}).get("namespace") or "default"
    except (config.ConfigException, OSError, ValueError, KeyError) as error:
        raise SandboxUnavailable(
            f"There is no way into a Kubernetes cluster: {error}",
            hint="Start the runner in a pod with a service account, or name a kubeconfig: kubernetes://?kubeconfig=/path",
        ) from error
    api = Api(client.ApiClient(settings), namespace, renew)
    try:
        await api.ask("GET", "/version")
    except ApiRefused as error:
        await api.close()
        raise SandboxUnavailable(
            f"No Kubernetes API server answers at {api.address}: {error}",
            hint="Check the address and the certificate in the kubeconfig, and that this machine may reach it.",
        ) from error
    return api
