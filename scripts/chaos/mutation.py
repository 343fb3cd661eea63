"""Random damage to bytes."""

import random

ODD = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0")
"""Numbers that readers of sizes and offsets stumble over."""


def flipped(data: bytes, draw: random.Random, bits: int = 1) -> bytes:
    """Return bytes of which some random bits are flipped."""
    result = bytearray(data)
    for _ in range(bits):
        result[draw.randrange(len(result))] ^= 1 << draw.randrange(8)
    return bytes(result)


def mutated(data: bytes, draw: random.Random, head: int = 64) -> bytes:
    """Return bytes with one kind of damage.

    Args:
        data: at least a few bytes.
        draw: the choice.
        head: length of what counts as a header, which is met more often.
    """
    kind, result = draw.random(), bytearray(data)
    if kind < 0.45:
        return flipped(data, draw, draw.choice([1, 1, 2, 5, 20]))
    at = draw.randrange(max(1, len(data) - 4))
    if kind < 0.60:
        for _ in range(draw.choice([1, 2, 3])):
            result[draw.randrange(min(len(result), head))] = draw.randrange(256)
    elif kind < 0.75:
        del result[at:]
    elif kind < 0.82:
        result[at:at] = draw.randbytes(draw.randrange(1, 200))
    elif kind < 0.89:
        del result[at : at + draw.randrange(1, 100)]
    elif kind < 0.95:
        result[at : at + 4] = draw.choice(ODD)
    else:
        result += draw.randbytes(300)
    return bytes(result)
