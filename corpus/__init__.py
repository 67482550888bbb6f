"""Stored text of any size -> documents, in parts that processes read side by side.

files.py finds and opens what is stored, here or on S3; formats.py decompresses it and tells documents apart;
documents.py divides a corpus into parts and reads them.
"""

from corpus.documents import Corpus, Document, Part, Problem, Reading

__all__ = ["Corpus", "Document", "Part", "Problem", "Reading"]
