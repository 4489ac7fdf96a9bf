"""The agent: two files, standard library only, the first process inside every sandbox. Never imported by the host."""

from pathlib import Path

SOURCE = Path(__file__).with_name("agent.py")
COLLECT = Path(__file__).with_name("collect.py")
