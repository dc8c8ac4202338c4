"""Seeds from seeds (stdlib)."""

import hashlib


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed from a few numbers or words; other words give an unrelated seed."""
    digest = hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
