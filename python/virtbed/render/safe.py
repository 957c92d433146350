"""Text as a terminal may show it: what a file or a host says is shown, never obeyed."""

from __future__ import annotations

import unicodedata

# Controls (escape sequences, among them), invisible formats (which reorder what is read), halves of
# characters (names of files that are no UTF-8), and separators that begin a line.
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def safe(text: str, kept: str = "\n\t") -> str:
    r"""Return text in which no character moves the cursor, colours, reorders or cannot be written.

    Args:
        text: The text.
        kept: Characters that stay though they are controls.

    Example:
        >>> safe("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _OBEYED and character not in kept
        else character
        for character in text
    )
