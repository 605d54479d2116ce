"""The one exception a user may meet."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what, where, and what to do (exit code 2).

    What the user wrote may stand in it, and hold anything: what cannot be printed is written as an escape, and a very
    long line is cut in its middle.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_shortened(_printable(message)))


#: Characters of the longest line that is shown whole.
_MOST = 1500


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _shortened(text: str) -> str:
    half = _MOST // 2
    return text if len(text) <= _MOST else f"{text[:half]} ... {text[-half:]}"
