"""Regular expressions in a tokenizer.json that take too long: found in a process that can be ended.

`tokenizers` searches with backtracking: one match of `(a+)+$` may take as long as the whole corpus otherwise, and no
signal is heard meanwhile. Patterns of today's tokenizers are known, and not tried.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from hindsight.errors import InputError

_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
KNOWN = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    f"{_ENDINGS}{_LETTERS}{{1,3}}{_REST}",  # Llama 3, GPT-4
    f"{_ENDINGS}{_LETTERS}{_REST}",  # Qwen
    r"\p{L}+",
    r"\p{N}",
    r"\s",
    r"\s+",
}
LIMIT_S = 20.0
"""Seconds for all texts; importing `tokenizers` in the other process takes a quarter of one."""
RUN_CHARS = 3000
_TRY = """
import json, sys, tokenizers
steps, texts = json.load(sys.stdin)
model = {"type": "BPE", "vocab": {}, "merges": []}
tokenizer = tokenizers.Tokenizer.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": model, **steps}))
for text in texts:
    tokenizer.encode(text)
    tokenizer.decode([])
"""


def require_quick_patterns(spec: dict[str, Any], where: str) -> None:
    """Raise InputError if a pattern of a tokenizer.json takes too long on long runs of its own characters."""
    steps = {name: spec[name] for name in ("normalizer", "pre_tokenizer") if spec.get(name)}
    unknown = sorted({pattern for pattern in patterns_of(steps) if pattern not in KNOWN})
    if unknown and not _is_quick(json.dumps(steps), "".join(unknown)):
        raise InputError(
            f"{where} has a pattern that takes too long, or cannot be used, on a few thousand characters "
            f"({unknown[0][:60]!r}); choose another tokenizer."
        )


def patterns_of(content: Any) -> Iterator[str]:
    """Find the regular expressions in a part of a tokenizer.json."""
    if isinstance(content, dict):
        if isinstance(content.get("Regex"), str):
            yield content["Regex"]
        content = list(content.values())
    if isinstance(content, list):
        for inner in content:
            yield from patterns_of(inner)


@lru_cache(maxsize=64)
def _is_quick(steps: str, characters: str) -> bool:
    """Split long runs of the pattern's characters, and of others, in another process."""
    runs = dict.fromkeys([*"aA1 \n-é漢_", *(char for char in characters if char.isprintable())])
    texts = [f"{char * RUN_CHARS}{end}" for char in list(runs)[:100] for end in ("!", "\0")]
    texts += [f"{pair * RUN_CHARS}!" for pair in ("ab", "a ", "a1", "a-", "\r\n", " \n")]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _TRY],
            input=json.dumps([json.loads(steps), texts]),
            text=True,
            capture_output=True,
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
