"""The one error that is shown to a person as a message, without a traceback."""

from typing import final


@final
class UserError(Exception):
    """Something the person can mend: says what is wrong, where, and what to do. Exit code 2."""
