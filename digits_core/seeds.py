"""Derives seeds from other seeds (only the standard library)."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers or words; different parts give independent seeds."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
