"""Which names a run may have: each is the name of a folder."""

_MOST_BYTES = 200
"""File systems take 255; what lies in the folder has names of its own to add in messages."""


def name_problems(name: str) -> list[str]:
    """Return what keeps a run's name from being that of a folder."""
    fits = name not in {"", ".", ".."} and "/" not in name and name.isprintable()
    if fits and len(name.encode(errors="surrogateescape")) <= _MOST_BYTES:
        return []
    shown = name if len(name) <= 60 else f"{name[:57]}..."
    return [
        f"name={shown}: expected the name of a folder, without '/', of printable letters, at most "
        f"{_MOST_BYTES} bytes"
    ]
