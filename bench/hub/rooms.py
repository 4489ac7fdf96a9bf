"""People in rooms: a generator in C writes and reads on one core, the server runs on the other.

    python -m bench.hub.rooms fan      5 writers with 8 edits in flight each, 50 readers: as fast as it goes
    python -m bench.hub.rooms steady   the same room at 100 edits a second
    python -m bench.hub.rooms typing   2 writers and 8 readers at typing speed
    python -m bench.hub.rooms many     500 rooms of two people, one edit a second each

Edits are counted by decoding what arrives, so merging or batching neither helps nor hurts. Each server is measured
`--runs` times, in turn with the others; medians are printed, and the ratios that matter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.hub.servers import LOAD_CORE, NAMES, Name, Started, compiled


@dataclass(frozen=True, slots=True)
class Shape:
    """What the generator does in each room."""

    rooms: int
    writers: int
    readers: int
    in_flight: int
    rate: float  # edits a second in a room
    seconds: float


SHAPES = {
    "fan": Shape(1, 5, 50, 8, 0, 4),
    "steady": Shape(1, 5, 50, 0, 100, 6),
    "typing": Shape(1, 2, 8, 0, 12, 8),
    "many": Shape(500, 2, 0, 0, 2, 8),
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A ratio of ours to others', and what it should be at most."""

    words: str
    figure: str
    peers: tuple[Name, ...]  # the best (least) of them
    most: float


GATES = {
    "fan": (
        Gate("CPU per delivered edit, of Hocuspocus'", "us", ("hocuspocus",), 0.33),
        Gate("CPU per delivered edit, of y-websocket's", "us", ("y-websocket",), 0.07),
        Gate("CPU per delivered edit, of the C relay's", "us", ("relay",), 1.4),
        Gate("time per delivery, of Hocuspocus'", "wall_us", ("hocuspocus",), 1 / 3),
    ),
    "steady": (Gate("CPU, of y-websocket's", "cpu_share", ("y-websocket",), 0.6),),
    "typing": (
        Gate("p50, of the best peer's", "p50_ms", ("hocuspocus", "y-websocket", "pycrdt"), 0.5),
        Gate("p99, of the best peer's", "p99_ms", ("hocuspocus", "y-websocket", "pycrdt"), 0.5),
    ),
    "many": (
        Gate("CPU, of the best peer's", "cpu_share", ("hocuspocus", "y-websocket", "pycrdt"), 0.65),
        Gate("p99, of the best peer's", "p99_ms", ("hocuspocus", "y-websocket", "pycrdt"), 1.0),
    ),
}


def measure(name: Name, shape: Shape, *, dialect: str = "") -> dict[str, float]:
    """Run the generator once against a fresh server."""
    with Started(name, shape.rooms, dialect=dialect) as server:
        paths = server.folder / "rooms"
        paths.write_text("\n".join(server.rooms) + "\n")
        asked = [shape.writers, shape.readers, shape.in_flight, shape.rate, shape.seconds]
        words = ["127.0.0.1", server.port, server.dialect, paths, *asked]
        generator = subprocess.Popen(
            ["taskset", "-c", LOAD_CORE, str(compiled("load")), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert generator.stdin is not None
        assert generator.stdout is not None
        assert generator.stderr is not None
        used = 0.0
        for line in generator.stderr:
            match line.strip():
                case "ready":
                    generator.stdin.write("g")
                    generator.stdin.flush()
                case "measure":
                    used = -server.cpu_seconds()
                case "done":
                    used += server.cpu_seconds()
                    break
                case words_said:
                    print(f"  {name}: {words_said}", file=sys.stderr)
        line = generator.stdout.readline()
        generator.stdin.close()
        generator.wait(30)
        if not line:
            raise RuntimeError(f"the generator ended early against {name}")
        found: dict[str, Any] = json.loads(line)
        delivered = max(1, found["delivered"])
        return {
            **found,
            "us": used / delivered * 1e6,
            "wall_us": found["seconds"] / delivered * 1e6,
            "per_s": delivered / found["seconds"],
            "cpu_share": used / found["seconds"],
        }


def main() -> int:
    """Measure, print, and return how many gates were missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.hub.rooms")
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    runs: dict[Name, list[dict[str, float]]] = {name: [] for name in options.only}
    for _ in range(options.runs):
        for name in options.only:
            try:
                runs[name].append(measure(name, shape))
            except RuntimeError as error:  # a peer may not stand it; that is said
                print(f"  {error}", file=sys.stderr)
    keys = ("us", "per_s", "cpu_share", "p50_ms", "p99_ms", "ack_p50_ms", "ack_p99_ms")
    best = {
        name: {key: median(run[key] for run in found) for key in keys}
        for name, found in runs.items()
        if found
    }
    print(
        f"{'':12} {'µs CPU/edit':>12} {'edits/s':>12} {'core':>6} {'p50 ms':>8} {'p99 ms':>8} {'ack p50':>8} {'ack p99':>8}"
    )
    for name, row in best.items():
        acked = [f"{row[key]:8.2f}" if row[key] >= 0 else f"{'-':>8}" for key in ("ack_p50_ms", "ack_p99_ms")]
        print(
            f"{name:12} {row['us']:12.3f} {row['per_s']:12,.0f} {row['cpu_share']:6.1%}"
            f" {row['p50_ms']:8.2f} {row['p99_ms']:8.2f} {' '.join(acked)}"
        )
    for row in best.values():
        row["wall_us"] = 1e6 / row["per_s"]
    missed = 0
    for gate in GATES[options.shape]:
        peers = [best[peer][gate.figure] for peer in gate.peers if peer in best]
        if "atelier" not in best or not peers:
            continue
        ratio = best["atelier"][gate.figure] / min(peers)
        missed += ratio > gate.most
        print(
            f"{'met   ' if ratio <= gate.most else 'MISSED'} {gate.words}: {ratio:.3f} (at most {gate.most:.2f})"
        )
    return missed


if __name__ == "__main__":
    sys.exit(main())
