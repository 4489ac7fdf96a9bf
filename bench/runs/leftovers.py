"""Runs thousands of programs while the process that runs them is killed at random: `python -m bench.runs.leftovers [--runs N]`.

The programs fork, write files, hold sockets and are cancelled half-way. In the end, after one ordinary start and end,
the machine must be as before: no process, mount, control group or file of any of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from atelier_runner import Limits, Output, Spec, open_local
from atelier_runner.staging import PREFIX
from bench.gates import missed

PROGRAMS = (
    b"print(1)",
    b"import os, time\nfor _ in range(8): os.fork() or (os.setsid(), time.sleep(60))\nprint(2, flush=True)",
    b"open('/tmp/x', 'wb').write(bytes(3_000_000)); open('/dev/shm/y', 'w').write('y'); print(3)",
    b"import socket, time\ns = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); print(4, flush=True); time.sleep(60)",
)
AT_ONCE = 6
DYING = 1.0
"""Seconds until the kernel has buried what was killed last: only then can the next start take its groups away."""
LIVES = (1.0, 8.0)
"""Seconds until the supervisor is killed."""


async def supervise(seed: int) -> None:
    """Run programs until this process is killed; prints a line for each that has ended."""
    draw = random.Random(seed)
    async with open_local(pool_size=4) as backend:

        async def go_on() -> None:
            while True:
                program = draw.choice(PROGRAMS)
                limits = Limits(wall_seconds=draw.choice((0.3, 2)), disk_mb=draw.choice((64, 16)))
                run = await backend.start(Spec("python", "m.py", {"m.py": program}, limits, stdin=b""))
                async for event in backend.events(run):
                    if isinstance(event, Output) and draw.random() < 0.5:
                        await backend.cancel(run)
                print(flush=True)

        await asyncio.gather(*(go_on() for _ in range(AT_ONCE)))


def traces() -> dict[str, set[str]]:
    """Return what there is of the kinds that may be left behind by processes that are gone."""
    agents = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, parent = (
                (path / "cmdline").read_bytes(),
                (path / "stat").read_text().rpartition(")")[2].split()[1],
            )
        except OSError:
            continue
        if b"/opt/atelier/agent.py" in words and parent == "1":
            agents.add(path.name)
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    groups = {
        folder
        for folder, _, _ in os.walk("/sys/fs/cgroup")
        if (found := re.search(r"/atelier-(\d+)-", folder)) and not Path("/proc", found[1]).exists()
    }
    files = {
        str(path)
        for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
        if not Path("/proc", path.name.removeprefix(PREFIX).split("-")[0]).exists()
    }
    return {"processes": agents, "mounts": mounts, "control groups": groups, "files": files}


async def kill_again_and_again(runs: int, seed: int) -> tuple[int, int]:
    """Start and kill supervisors until they have ended so many runs; returns the runs and the kills."""
    draw, done, kills = random.Random(seed), 0, 0
    while done < runs:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.runs.leftovers", "--supervise", str(draw.randrange(1 << 30)),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        until = time.monotonic() + draw.uniform(*LIVES)
        while (left := until - time.monotonic()) > 0 and done < runs:
            try:
                done += bool(await asyncio.wait_for(process.stdout.readline(), left))
            except TimeoutError:
                break
        process.send_signal(signal.SIGKILL)
        await process.communicate()
        kills += 1
        if kills % 50 == 0:
            print(f"{done:,} runs, {kills} kills", flush=True)
    return done, kills


async def start_and_end() -> None:
    async with open_local(pool_size=1) as backend:
        await backend.warm()


def main() -> int:
    """Print what is left; returns how many kinds there are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--supervise", type=int, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.supervise is not None:
        asyncio.run(supervise(options.supervise))
        return 0
    asyncio.run(start_and_end())
    before = traces()
    seed = random.SystemRandom().randrange(1 << 30)
    done, kills = asyncio.run(kill_again_and_again(options.runs, seed))
    time.sleep(DYING)
    asyncio.run(start_and_end())
    after = traces()
    print(f"{done:,} runs, {kills} kills of their supervisor (seed {seed})")
    return missed([(f"{kind} left", float(len(after[kind] - before[kind])), 0.0) for kind in before])


if __name__ == "__main__":
    sys.exit(main())
