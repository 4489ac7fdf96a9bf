"""The agent: one file, standard library only, the first process inside every sandbox. Never imported by the host."""

from pathlib import Path

SOURCE = Path(__file__).with_name("agent.py")
