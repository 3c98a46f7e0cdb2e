"""The errors that are shown to a person as a message, without a traceback."""

from typing import final


class UserError(Exception):
    """Something the person can mend: says what is wrong, where, and what to do."""

    exit_code = 2


@final
class DivergedError(UserError):
    """Training has come to losses that are no numbers, or spike again and again: says since when, and what to do."""


@final
class LostRankError(Exception):
    """Another rank of the run died or hangs: says which, and what it was doing."""

    exit_code = 4


@final
class Stopped(KeyboardInterrupt):
    """Somebody asked the program to stop where there is nothing to be saved. Exit code 130."""
