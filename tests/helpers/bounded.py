"""Reading a corpus in a process of its own, whose memory is measured."""

import subprocess
import sys

from helpers.processes import ROOT

BOUNDED = """
import resource, sys
import pyarrow.parquet, zstandard
from hindsight.config.corpus import CorpusConfig, CorpusFormat, OnError
from hindsight.errors import InputError
from hindsight.text.documents import Corpus
from hindsight.text.problems import ReadingReport
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reading = ReadingReport()
config = CorpusConfig(corpus=sys.argv[1], corpus_format=CorpusFormat[sys.argv[2]], on_error=OnError[sys.argv[3]])
try:
    for document in Corpus(config).documents(reading):
        pass
    print(reading.problems[0].message)
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def read_in_a_child(path, corpus_format="cc100", on_error="stop"):
    """What reading a file in a process of its own says, and the MiB that it takes."""
    command = [sys.executable, "-c", BOUNDED, str(path), corpus_format, on_error]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    said, mebibytes = child.stdout.strip().split("\n")
    return said, int(mebibytes)
