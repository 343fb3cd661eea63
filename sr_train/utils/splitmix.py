"""Chance without state: bits for each sample."""

_MASK = (1 << 64) - 1


def splitmix64(bits: int) -> int:
    """Return 64 well-mixed bits; far cheaper than making a generator for every sample.

    Reference: Steele, Lea, Flood, Fast splittable pseudorandom number generators, OOPSLA 2014,
        https://doi.org/10.1145/2660193.2660195 (SplitMix64).
    """
    bits = (bits + 0x9E3779B97F4A7C15) & _MASK
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)
