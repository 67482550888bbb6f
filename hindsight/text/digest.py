"""Hashes of documents, and of stretches of documents that can be joined."""

import hashlib
from typing import NamedTuple

HASH_BYTES = 16
PRIME = 2**255 - 19
BASE = int.from_bytes(b"what was read, in the order it came", "big") % PRIME


class Digest(NamedTuple):
    """Hash of documents in order: the polynomial in BASE, modulo PRIME, whose coefficients are their hashes.

    Digests of stretches join to that of the whole, wherever it was cut.
    """

    documents: int = 0
    value: int = 0

    def then(self, other: "Digest") -> "Digest":
        """Give the digest of what this one stands for, followed by what the other one does."""
        shifted = self.value * pow(BASE, other.documents, PRIME)
        return Digest(self.documents + other.documents, (shifted + other.value) % PRIME)

    @property
    def fingerprint(self) -> str:
        """Write the digest in a fixed length."""
        return hashlib.sha256(f"{self.documents} {self.value}".encode()).hexdigest()

    @classmethod
    def of(cls, hashes: list[bytes]) -> "Digest":
        """Give the digest of documents with these hashes."""
        value = 0
        for single in hashes:
            value = (value * BASE + int.from_bytes(single, "big")) % PRIME
        return cls(len(hashes), value)


def hash_document(raw: bytes) -> bytes:
    """Hash the bytes of a document to HASH_BYTES."""
    return hashlib.blake2b(raw, digest_size=HASH_BYTES).digest()
