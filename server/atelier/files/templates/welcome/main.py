"""Welcome to Atelier. Press Run (Ctrl+Enter), then change something and run again."""

import sys
from pathlib import Path

from garden.plants import grow

rows = 5
names = Path("names.txt").read_text().split()

print(grow(names, rows))
print()
print(f"{len(names)} plants. Share this page, and grow it together.")

# Try this: add your name to names.txt.
# Try this: take the # away below, run, and answer in the Output panel.
# print(f"Hello {input('Who is gardening? ')}!")

if "--loud" in sys.argv:
    print("MORE RAIN!")
