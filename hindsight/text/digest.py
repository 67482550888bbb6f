"""Hashes of single documents, and digests of sequences of documents, which can be joined."""

import hashlib
from typing import NamedTuple

from hindsight.text.formats import BOM

HASH_BYTES = 16
PRIME = 2**255 - 19
BASE = int.from_bytes(b"what was read, in the order it came", "big") % PRIME
"""An arbitrary constant, which must not change: the fingerprint of every corpus depends on it."""


class Digest(NamedTuple):
    """Hash of documents in order: the polynomial in BASE, modulo PRIME, whose coefficients are their hashes.

    The digests of consecutive sequences join to the digest of all of their documents, wherever the cuts lie.
    """

    documents: int = 0
    value: int = 0

    def then(self, other: "Digest") -> "Digest":
        """Give the digest of this one's documents followed by the documents of the other one."""
        shifted = self.value * pow(BASE, other.documents, PRIME)
        return Digest(self.documents + other.documents, (shifted + other.value) % PRIME)

    @property
    def fingerprint(self) -> str:
        """Hash of the digest, as hexadecimal text of fixed length."""
        return hashlib.sha256(f"{self.documents} {self.value}".encode()).hexdigest()

    @classmethod
    def of(cls, hashes: list[bytes]) -> "Digest":
        """Compute the digest of documents from their hashes, in order."""
        value = 0
        for single in hashes:
            value = (value * BASE + int.from_bytes(single, "big")) % PRIME
        return cls(len(hashes), value)


def hash_document(raw: bytes) -> bytes:
    """Hash the bytes of a document to HASH_BYTES."""
    return hashlib.blake2b(raw, digest_size=HASH_BYTES).digest()


def content_of(raw: bytes) -> bytes:
    """Give what a document says: the same for a text in every format.

    Formats differ in what they keep around a document: a text file its last line feed, JSON none, an editor a byte
    order mark or carriage returns. Here a document has one line feed at its end, as most have in text files, and none
    of the others.
    """
    text = raw.removeprefix(BOM).strip(b"\r\n")
    return (text.replace(b"\r\n", b"\n") if b"\r" in text else text) + b"\n"
