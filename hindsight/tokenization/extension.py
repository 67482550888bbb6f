"""Whether a tokenizer is another one with tokens added behind it: the embeddings of that one then fit it."""

import json
from pathlib import Path
from typing import Any

import tokenizers

from hindsight.errors import InputError
from hindsight.tokenization.folder import read_folder
from hindsight.tokenization.tokenizer import Tokenizer

SAME = ("model", "normalizer", "pre_tokenizer")
"""What of a tokenizer.json gives a text its tokens."""


def ids_before(tokenizer: Tokenizer, folder: Path, where: str) -> int:
    """Count the ids of the tokenizer in a folder, from 0 on; of those above, another one knows nothing.

    Args:
        tokenizer: another, which may have special tokens more, or fewer.
        folder: holds the first.
        where: how messages name the folder.

    Raises:
        InputError: one of these ids is another token in `tokenizer`, or a text gets other ids.
    """
    _, written, _ = read_folder(folder, where)
    try:
        before = tokenizers.Tokenizer.from_str(written)
    except Exception as error:  # tokenizers raises plain Exceptions
        raise InputError(f"{where}: its tokenizer.json is damaged ({error}); copy it again.") from error
    after = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.spec))
    names_before, names_after = (
        {number: name for name, number in each.get_vocab(with_added_tokens=True).items()} for each in (before, after)
    )
    for number, name in sorted(names_before.items()):
        if names_after.get(number, name) != name:
            raise InputError(
                f"{where} has another tokenizer than the data: id {number} is {name!r} there and "
                f"{names_after[number]!r} in data.tokenizer; convert the text with the tokenizer of the weights, "
                "or with that and special tokens added behind."
            )
    left, right = (_what_tokens_depend_on(each) for each in (before, after))
    if differing := [key for key in SAME if left[key] != right[key]]:
        raise InputError(
            f"{where} has another tokenizer than the data: the {' and the '.join(differing)} in tokenizer.json differ, "
            "so that a text has other tokens; convert the text with the tokenizer of the weights."
        )
    return max(names_before) + 1


def _what_tokens_depend_on(tokenizer: tokenizers.Tokenizer) -> dict[str, Any]:
    """Read a tokenizer in the form that this version of the library gives it; dropout is of the training of models."""
    spec = json.loads(tokenizer.to_str())
    return {**spec, "model": {**spec["model"], "dropout": None}}
