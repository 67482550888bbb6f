"""What users can mend: errors that end a command with one line and exit status 2."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class InputError(ValueError):
    """What the user gave cannot work: the message names the key or file, the rule and the way out. Exit status 2."""
