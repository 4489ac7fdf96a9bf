"""What the runner asks of a Docker engine, and the only module that touches the docker package.

The package is optional (`pip install 'atelier-runner[docker]'`) and costs a fifth of a second to import, so it is
imported when an engine is opened. Every call here blocks; callers keep a thread pool. The engine is reached through its
Unix socket: `attach` hands its connection over as a plain socket, which goes on in the event loop.
"""

from __future__ import annotations

import importlib
import io
import os
import socket
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from atelier_runner.errors import SandboxUnavailable

DEFAULT_SOCKET = "/var/run/docker.sock"
CALL_SECONDS = 30
ENDED_SECONDS = 5
INSTALL_HINT = "Install the package: pip install 'atelier-runner[docker]'"


@dataclass(frozen=True, slots=True)
class State:
    """How a container is: `pid` is its first process in the engine's eyes, 0 when it does not run."""

    pid: int
    running: bool
    ended: str
    """When, in ISO 8601; long ago while it has not."""
    oom_killed: bool


class EngineRefused(Exception):
    """The engine answered with an error, in its own words."""


class Engine:
    """One engine. Its methods may be called from several threads at once."""

    def __init__(self, path: str = DEFAULT_SOCKET) -> None:
        """Connect.

        Raises:
            SandboxUnavailable: the package is missing, or no engine answers there.
        """
        try:
            self._docker = importlib.import_module("docker")
        except ImportError as error:
            raise SandboxUnavailable("The docker package is missing.", hint=INSTALL_HINT) from error
        self.path = path or DEFAULT_SOCKET
        try:
            with socket.socket(socket.AF_UNIX) as probe:  # the package leaks its socket where nobody listens
                probe.connect(self.path)
            self._client = self._docker.APIClient(
                f"unix://{self.path}", version="auto", timeout=CALL_SECONDS, num_pools=16
            )
            self.info: dict[str, Any] = self._client.info()
        except (self._docker.errors.DockerException, OSError) as error:
            raise SandboxUnavailable(
                f"No Docker engine answers at {self.path}: {error}",
                hint="Start it, or name its socket (docker:///path/to/socket); this user must be allowed to use it.",
            ) from error

    def close(self) -> None:
        """Close every connection but those that were handed over."""
        self._client.close()

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except self._docker.errors.APIError as error:
            raise EngineRefused(str(error.explanation or error)) from error
        except (self._docker.errors.DockerException, OSError) as error:
            raise EngineRefused(f"The engine does not answer: {error}") from error

    def images(self, label: str) -> list[tuple[str, dict[str, str]]]:
        """Return each image with this label and a name, newest first, as (id, its labels). A replaced one has no name."""
        with self._asking():
            found = self._client.images(filters={"label": label, "dangling": False})
        found.sort(key=lambda image: image["Created"], reverse=True)
        return [(str(image["Id"]), dict(image["Labels"] or {})) for image in found]

    def create(self, table: Mapping[str, Any]) -> str:
        """Make a container from the API's own table, not yet started; returns its id."""
        with self._asking():
            return str(self._client.create_container_from_config(dict(table))["Id"])

    def attach(self, container: str) -> socket.socket:
        """Return the connection to a container's standard streams; attach before it is started, and nothing is missed."""
        answer = self._post(
            f"/containers/{container}/attach",
            params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1},
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            stream=True,
        )
        # The package gives a reader over the connection that cannot write: take the connection itself.
        connection = socket.socket(fileno=os.dup(answer.raw.fileno()))
        answer.close()
        connection.setblocking(False)
        return connection

    def _post(self, path: str, **options: Any) -> Any:
        """Ask what the package has no method for, or one that lacks something."""
        address = f"{self._client.base_url}/v{self._client.api_version}{path}"
        with self._asking():
            answer = self._client.post(address, timeout=CALL_SECONDS, **options)
            if answer.status_code >= 400:
                raise EngineRefused(answer.json().get("message", answer.reason))
        return answer

    def start(self, container: str) -> None:
        """Start a container."""
        with self._asking():
            self._client.start(container)

    def state(self, container: str) -> State:
        """Say how a container is."""
        with self._asking():
            found = self._client.inspect_container(container)["State"]
        return State(
            int(found["Pid"]), bool(found["Running"]), str(found["FinishedAt"]), bool(found["OOMKilled"])
        )

    def ended(self, container: str) -> State:
        """Wait until a container has ended, a few seconds at most, and say how it is."""
        with self._asking():
            self._client.wait(container, timeout=ENDED_SECONDS)
        return self.state(container)

    def limit(self, container: str, *, memory_bytes: int, processes: int) -> None:
        """Change a running container's limits."""
        body = {"Memory": memory_bytes, "MemorySwap": memory_bytes, "PidsLimit": processes}
        self._post(f"/containers/{container}/update", json=body)

    def stats(self, container: str) -> dict[str, Any]:
        """Return what the engine counted for a container until now."""
        with self._asking():
            found: dict[str, Any] = self._client.stats(container, stream=False, one_shot=True)
        return found

    def containers(self, label: str) -> list[tuple[str, dict[str, str]]]:
        """Return every container with this label, whatever its state, as (id, its labels)."""
        with self._asking():
            found = self._client.containers(all=True, filters={"label": label})
        return [(str(one["Id"]), dict(one["Labels"] or {})) for one in found]

    def remove(self, container: str) -> None:
        """Kill and remove a container; one that is gone, or going, is fine."""
        with self._asking():
            try:
                self._client.remove_container(container, force=True, v=True)
            except self._docker.errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise

    def kills(self, label: str) -> tuple[Iterator[str], Callable[[], None]]:
        """Return the ids of containers with this label as the kernel kills in them for memory, and how to end that.

        The iterator blocks; it ends when the engine goes away or the function is called from another thread.
        """
        with self._asking():
            events = self._client.events(
                decode=True, filters={"label": label, "event": "oom", "type": "container"}
            )
        return (str(event["Actor"]["ID"]) for event in events), events.close

    def build(
        self,
        files: Mapping[str, bytes],
        *,
        say: Callable[[str], None],
        tag: str = "",
        network: str | None = None,
        fresh: bool = False,
    ) -> str:
        """Build an image from a folder with a Dockerfile; returns its id. `say` is told each line that the build prints."""
        folder = io.BytesIO()
        with tarfile.open(fileobj=folder, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        folder.seek(0)
        built = ""
        with self._asking():
            for line in self._client.build(
                fileobj=folder, custom_context=True, tag=tag or None, network_mode=network, rm=True, forcerm=True,
                decode=True, timeout=None, nocache=fresh,
            ):  # fmt: skip
                if "error" in line:
                    raise EngineRefused(str(line["error"]))
                if text := str(line.get("stream", "")).strip():
                    say(text)
                built = line.get("aux", {}).get("ID", built)
        return built

    def output(self, table: Mapping[str, Any]) -> tuple[int, str]:
        """Run a container to its end and remove it; returns its exit code and what it printed on both streams."""
        container = self.create({**table, "Tty": False})
        try:
            with self._asking():
                self._client.start(container)
                code = int(self._client.wait(container, timeout=CALL_SECONDS)["StatusCode"])
                return code, self._client.logs(container).decode(errors="replace")
        finally:
            self.remove(container)
