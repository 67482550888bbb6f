"""Publishing an exported folder on the Hub of Hugging Face, by huggingface_hub.

The token is the one that huggingface_hub finds in its usual places; it is never a key, and never shown.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hindsight.errors import InputError


def check_login(repository: str) -> None:
    """Raise InputError, before time is spent, if nobody is logged in, or the Hub cannot be reached."""
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise InputError(f"push={repository} needs a token: log in with `hf auth login`, or set HF_TOKEN.")
    with _asking(repository, "nothing was written"):
        HfApi().whoami()


def push(folder: Path, repository: str, private: bool, message: str) -> str:
    """Upload a folder; a repository that is not there is made.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    with _asking(repository, f"{folder} is complete, and the same command uploads it"):
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message).commit_url


@contextmanager
def _asking(repository: str, state: str) -> Iterator[None]:
    """Raise InputError for whatever the Hub refuses, with the state in which that leaves the folder."""
    try:
        yield
    except Exception as error:  # by its version, huggingface_hub raises those of requests or of httpx, and its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"push={repository}: the Hub did not take it ({reason}); {state}.") from error
