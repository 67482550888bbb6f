"""Text as people may see it: without credentials, and without what a terminal would obey."""

import re

CREDENTIALS = re.compile(
    r"""://(?:
        [^/?\#\s'"]*@                                          # user:password@host
      | (?![^/?\#\s:]*:\d+(?:[/?\#\s'"]|$)) [^/?\#\s:'"]*:[^\s'"]*@    # KEY:SECRET@bucket, where SECRET has a slash
    )""",
    re.VERBOSE,
)
SIGNED = re.compile(
    r"""(://[^\s'"?]*)\?
    (?:[^\s'"]*[?&])?         # other parameters, or a ? of a pattern
    (?![.-])[\w.-]{0,64}
    (?:(?<![a-z])sig|signature|token(?!iz)|key(?!word)|credential)   # no design=
    [\w.-]{0,64}=             # no folder, such as /keys/
    [^\s'"]*""",
    re.VERBOSE | re.IGNORECASE,
)
"""An address that lets whoever has it in: a parameter of its query is a signature."""
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, marks that change the direction of text, and bytes that are no UTF-8."""


def holds_credentials(text: str) -> bool:
    """Whether an address in a text holds a user, a password or a signature."""
    return CREDENTIALS.search(text) is not None or SIGNED.search(text) is not None


def without_credentials(text: str) -> str:
    """Leave out of all addresses in a text who logs in there, and with what."""
    return SIGNED.sub(r"\1?***", CREDENTIALS.sub("://***@", text))


def visible(text: str) -> str:
    r"""Write control characters as \x1b instead of sending them; bytes that are no UTF-8 as \xff."""
    return OBEYED.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file's name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    r"""Write a text in one line without tabs: line feeds as \n, tabs as \t."""
    return text.replace("\r", "").replace("\n", "\\n").replace("\t", "\\t")
