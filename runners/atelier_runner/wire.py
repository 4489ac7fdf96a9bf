"""What a runner service and its clients say to each other, as bytes: the one place that writes and reads them.

A message is a JSON object and bytes: 4 bytes with the object's length (big-endian), the object in UTF-8, the rest. Both
sides trust nothing: what does not have the expected shape raises `BadMessage`. `PROTOCOL.md` has the conversation.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from atelier_runner.model import (
    BuildLimits,
    Capabilities,
    CellBegan,
    CellEnded,
    CellError,
    CellLimits,
    CellValue,
    Changed,
    Collect,
    Collected,
    Control,
    Event,
    Exited,
    LanguageInfo,
    LeftOut,
    Limits,
    Looked,
    Network,
    Outcome,
    Output,
    Packages,
    Reason,
    Spec,
    Started,
    Window,
)

LENGTH: Final = struct.Struct(">I")
HEAD_BYTES: Final = 4 * 1024 * 1024
"""Of the object; 2,000 long paths fit."""
WHOLE_LIMITS: Final = ("memory_mb", "processes", "disk_mb", "output_bytes", "value_bytes")
COLLECT_SECONDS: Final = 60
INPUT_WINDOW: Final = 256 * 1024
"""Bytes of input that a client may have sent and not had confirmed."""


class BadMessage(ValueError):
    """What came is not what the protocol says."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Output that nobody was there to read, and of which head and tail are kept: what lay between is gone."""

    seq: int
    """Of the last event that is gone."""
    size: int
    """Bytes."""


Told = Event | Cut
"""What a service tells of a run."""


def pack(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return one message."""
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return LENGTH.pack(len(text)) + text + body


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Return a message's object and bytes. Raises BadMessage."""
    if len(message) < LENGTH.size:
        raise BadMessage(f"a message has at least {LENGTH.size} bytes, not {len(message)}")
    end = LENGTH.size + LENGTH.unpack_from(message)[0]
    if end > len(message):
        raise BadMessage("a message is shorter than its head says")
    return read_head(message[LENGTH.size : end]), message[end:]


def read_head(text: bytes) -> dict[str, Any]:
    """Return a message's object. Raises BadMessage."""
    try:
        head = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"a head is not JSON: {str(error)[:100]}") from None
    if not isinstance(head, dict):
        raise BadMessage("a head is a JSON object")
    return head


def is_count(value: object) -> bool:
    """Say whether a value is a number of things: whole, not negative, exact in every language."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def _is_text(value: object) -> bool:
    """Say whether a value is a text that UTF-8 can carry; JSON can name half of a surrogate pair."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


# --- what to run ------------------------------------------------------------------------------------------------------


def spec_head(spec: Spec) -> dict[str, Any]:
    """Describe a run; its bytes follow apart, see `spec_sizes`."""
    return {
        "language": spec.language,
        "entry": spec.entry,
        "files": [[path, len(data)] for path, data in spec.files.items()],
        "stdin": None if spec.stdin is None else len(spec.stdin),
        "limits": asdict(spec.limits),
        "args": list(spec.args),
        "env": dict(spec.env),
        "terminal": None if spec.terminal is None else [spec.terminal.columns, spec.terminal.rows],
        "collect": None if spec.collect is None else asdict(spec.collect),
        "build": None if spec.build is None else asdict(spec.build),
        "network": None if spec.network is None else {"hosts": spec.network.hosts},
        "packages": [[packages.tool, list(packages.wanted)] for packages in spec.packages],
        "cells": None if spec.cells is None else asdict(spec.cells),
    }


def spec_blobs(spec: Spec) -> list[bytes]:
    """Return the bytes that follow the head: the files in its order, then the input."""
    return [*spec.files.values(), *([] if spec.stdin is None else [spec.stdin])]


def spec_sizes(head: Mapping[str, Any]) -> list[int]:
    """Return how many bytes each blob has. Raises BadMessage."""
    files, stdin = head.get("files"), head.get("stdin")
    if not isinstance(files, list) or not all(
        isinstance(file, list) and len(file) == 2 and isinstance(file[0], str) and is_count(file[1])
        for file in files
    ):
        raise BadMessage("files is a list of [path, size]")
    if len({path for path, _ in files}) < len(files):
        raise BadMessage("a path is there twice")
    if stdin is not None and not is_count(stdin):
        raise BadMessage("stdin is a size, or null")
    return [size for _, size in files] + ([] if stdin is None else [stdin])


def read_limits(given: object) -> Limits:
    """Return bounds; those that are not given have their defaults, and `Limits.check` looks at the values.

    Raises:
        BadMessage: one is unknown, or no number.
    """
    return Limits(**_numbers(given, {field.name for field in fields(Limits)}))


def read_build(given: object) -> BuildLimits:
    """Return bounds on compiling; as `read_limits`."""
    return BuildLimits(**_numbers(given, {field.name for field in fields(BuildLimits)}))


def read_cells(given: object) -> CellLimits:
    """Return bounds on each cell; as `read_limits`."""
    return CellLimits(**_numbers(given, {field.name for field in fields(CellLimits)}))


def _numbers(given: object, names: set[str]) -> dict[str, Any]:
    if not isinstance(given, dict) or not given.keys() <= names:
        raise BadMessage("limits is an object of known limits")
    for name, value in given.items():
        whole = name in WHOLE_LIMITS
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            if not (whole and isinstance(value, float) and value != value):  # NaN is refused by name
                raise BadMessage(f"{name} is a {'whole ' if whole else ''}number")
    return given


def read_spec(head: Mapping[str, Any], blobs: list[bytes]) -> Spec:
    """Return the run that a head and its blobs describe. Raises BadMessage."""
    args, env = head.get("args", []), head.get("env", {})
    if not all(_is_text(head.get(name)) for name in ("language", "entry")):
        raise BadMessage("language and entry are texts")
    if not isinstance(args, list) or not all(map(_is_text, args)):
        raise BadMessage("args is a list of texts")
    if not isinstance(env, dict) or not all(map(_is_text, (*env, *env.values()))):
        raise BadMessage("env is an object of texts")
    terminal, collect = head.get("terminal"), head.get("collect")
    if terminal is not None and not (
        isinstance(terminal, list) and len(terminal) == 2 and all(map(is_count, terminal))
    ):
        raise BadMessage("terminal is [columns, rows], or null")
    paths = [path for path, _ in head["files"]]
    return Spec(
        language=head["language"],
        entry=head["entry"],
        files=dict(zip(paths, blobs, strict=False)),
        limits=read_limits(head.get("limits", {})),
        args=args,
        stdin=None if head.get("stdin") is None else blobs[-1],
        env=env,
        terminal=None if terminal is None else Window(*terminal),
        collect=None if collect is None else read_collect(collect),
        build=None if head.get("build") is None else read_build(head["build"]),
        network=None if head.get("network") is None else read_network(head["network"]),
        packages=read_packages(head.get("packages", [])),
        cells=None if head.get("cells") is None else read_cells(head["cells"]),
    )


def read_packages(given: object) -> tuple[Packages, ...]:
    """Return what must be installed; `Packages.check` looks at the names. Raises BadMessage."""
    if not isinstance(given, list) or not all(
        isinstance(item, list)
        and len(item) == 2
        and _is_text(item[0])
        and isinstance(item[1], list)
        and all(map(_is_text, item[1]))
        for item in given
    ):
        raise BadMessage("packages is a list of [tool, names]")
    return tuple(Packages(tool, tuple(wanted)) for tool, wanted in given)


def read_network(given: object) -> Network:
    """Return what a program may reach. That hosts may have private addresses is nobody's to say from outside. Raises BadMessage."""
    if not isinstance(given, dict) or given.keys() != {"hosts"}:
        raise BadMessage("network is an object with hosts")
    hosts = given["hosts"]
    if hosts is not None and not (isinstance(hosts, list) and all(isinstance(host, str) for host in hosts)):
        raise BadMessage("network.hosts is a list of texts, or null")
    return Network(None if hosts is None else tuple(hosts))


def read_collect(given: object) -> Collect:
    """Return how much of what a program writes is wanted back. Raises BadMessage."""
    if not isinstance(given, dict) or not given.keys() <= {field.name for field in fields(Collect)}:
        raise BadMessage("collect is an object of known bounds")
    ignored, seconds = given.get("ignored", []), given.get("seconds", 1)
    if not isinstance(ignored, list) or not all(isinstance(name, str) for name in ignored):
        raise BadMessage("collect.ignored is a list of texts")
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 < seconds <= COLLECT_SECONDS
    ):
        raise BadMessage(f"collect.seconds is above zero and at most {COLLECT_SECONDS}")
    if not all(is_count(value) for name, value in given.items() if name not in ("ignored", "seconds")):
        raise BadMessage("collect has whole numbers")
    return Collect(**{**given, **({"ignored": tuple(ignored)} if "ignored" in given else {})})


def change_head(files: Mapping[str, bytes | None]) -> dict[str, Any]:
    """Describe files that are brought to a run; their bytes follow in this order."""
    return {"files": [[path, None if data is None else len(data)] for path, data in files.items()]}


def change_sizes(head: Mapping[str, Any]) -> dict[str, int | None]:
    """Return how many bytes each file has, None for one that is gone. Raises BadMessage."""
    files = head.get("files")
    if not isinstance(files, list) or not all(
        isinstance(file, list)
        and len(file) == 2
        and isinstance(file[0], str)
        and (file[1] is None or is_count(file[1]))
        for file in files
    ):
        raise BadMessage("files is a list of [path, size or null]")
    return dict(files)


# --- what came of it --------------------------------------------------------------------------------------------------


def pack_event(event: Told) -> bytes:
    """Return the message that tells an event."""
    match event:
        case Started():
            return pack({"type": "started", "seq": event.seq, "version": event.version})
        case Output():
            cell = {"cell": event.cell} if event.cell else {}
            return pack({"type": "output", "seq": event.seq, "stream": event.stream, **cell}, event.data)
        case CellBegan():
            return pack({"type": "cell_began", "seq": event.seq, "cell": event.cell})
        case CellValue():
            told = {name: getattr(event, name) for name in ("seq", "cell", "role", "media_type", "instead")}
            return pack({"type": "cell_value", **told}, event.data)
        case CellEnded():
            return pack({"type": "cell_ended", **asdict(event)})
        case Changed():
            return pack(
                {"type": "changed", "seq": event.seq, "path": event.path, "gone": event.data is None},
                event.data or b"",
            )
        case Looked():
            return pack({"type": "looked", "seq": event.seq})
        case Cut():
            return pack({"type": "cut", "seq": event.seq, "size": event.size})
        case Exited():
            return pack({"type": "exited", **asdict(event)})


def read_event(head: Mapping[str, Any], body: bytes) -> Told:
    """Return the event that a message tells. Raises BadMessage."""
    try:
        match head["type"]:
            case "started":
                return Started(head["seq"], head["version"])
            case "output":
                return Output(head["seq"], head["stream"], body, head.get("cell", 0))
            case "cell_began":
                return CellBegan(head["seq"], head["cell"])
            case "cell_value":
                told = {name: head[name] for name in ("seq", "cell", "role", "media_type", "instead")}
                return CellValue(**told, data=body)
            case "cell_ended":
                outcome, error = Outcome(head["outcome"]), _cell_error(head["error"])
                return CellEnded(head["seq"], head["cell"], outcome, head["wall_seconds"], error)
            case "changed":
                return Changed(head["seq"], head["path"], None if head["gone"] else body)
            case "looked":
                return Looked(head["seq"])
            case "cut":
                return Cut(head["seq"], head["size"])
            case "exited":
                known = {field.name: head[field.name] for field in fields(Exited)}
                return Exited(
                    **{
                        **known,
                        "reason": Reason(known["reason"]),
                        "collected": _collected(known["collected"]),
                    }
                )
    except (KeyError, TypeError, ValueError) as error:
        raise BadMessage(f"an event lacks something: {error}") from None
    raise BadMessage(f"an event of type {head['type']!r} is not known")


def _cell_error(given: Any) -> CellError | None:
    if given is None:
        return None
    place = given["place"]
    return CellError(given["name"], given["message"], given["text"], None if place is None else tuple(place))


def _collected(given: Any) -> Collected | None:
    if given is None:
        return None
    return Collected(given["complete"], tuple(LeftOut(**item) for item in given["left_out"]), given["count"])


# --- what a machine can do --------------------------------------------------------------------------------------------


def read_capabilities(head: Mapping[str, Any]) -> Capabilities:
    """Return what `asdict` made of capabilities. Raises BadMessage."""
    try:
        return Capabilities(
            head["available"],
            head["hint"],
            tuple(Control(**control) for control in head["controls"]),
            tuple(
                LanguageInfo(**{**language, "extensions": tuple(language["extensions"])})
                for language in head["languages"]
            ),
        )
    except (KeyError, TypeError) as error:
        raise BadMessage(f"capabilities lack something: {error}") from None
