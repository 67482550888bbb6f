"""What users can mend: errors that end a command with one line and exit status 2."""

import errno

from hindsight.shown_text import without_credentials

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """What the user gave cannot work: the message names the key or file, the rule and the way out. Exit status 2."""

    def __init__(self, message: str = "") -> None:
        super().__init__(without_credentials(message))
