"""Publishing an exported folder on the Hub of Hugging Face, by huggingface_hub.

The token is the one that huggingface_hub finds in its usual places; it is never a key, and never shown.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hindsight.errors import InputError

Answer = TypeVar("Answer")


def check_login(repository: str) -> None:
    """Raise InputError, before time is spent, if nobody is logged in, or the Hub cannot be reached."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise InputError(f"push={repository} needs a token: log in with `hf auth login`, or set HF_TOKEN.")
    _ask(repository, HfApi().whoami, "nothing was written")


def push(folder: Path, repository: str, private: bool, message: str) -> str:
    """Upload a folder; a repository that is not there is made.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    def upload() -> Any:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)

    return _ask(repository, upload, f"{folder} is complete, and the same command uploads it").commit_url


def _ask(repository: str, question: Callable[[], Answer], state: str) -> Answer:
    try:
        return question()
    except Exception as error:  # by its version, huggingface_hub raises those of requests or of httpx, and its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"push={repository}: the Hub did not take it ({reason}); {state}.") from error
