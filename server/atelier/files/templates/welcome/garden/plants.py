"""Turns names into plants: the same name always grows the same one."""

BLOSSOMS = "✿❀✾❁✽"
LEAVES = ("\\|/", "\\| ", " |/", " | ")


def grow(names: list[str], rows: int) -> str:
    """Draw one plant for each name, `rows` lines tall at most."""
    plants = [draw(name, 2 + sum(map(ord, name)) % (rows - 1)) for name in names]
    lines = []
    for row in range(rows, -1, -1):
        lines.append("  ".join(plant.get(row, "   ").center(9) for plant in plants).rstrip())
    lines.append("─" * (11 * len(names)))
    lines.append("  ".join(name[:9].center(9) for name in names))
    return "\n".join(lines)


def draw(name: str, height: int) -> dict[int, str]:
    """Return the plant's picture by row, from the ground up."""
    seed = sum(ord(letter) * place for place, letter in enumerate(name, start=1))
    plant = {row: LEAVES[(seed + row) % len(LEAVES)] for row in range(height)}
    plant[height] = f" {BLOSSOMS[seed % len(BLOSSOMS)]} "
    return plant
