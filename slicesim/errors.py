"""The one exception a user may meet."""


class UserError(Exception):
    """A mistake in what the user gave: one line that says what, where, and what to do (exit code 2)."""
