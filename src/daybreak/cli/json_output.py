"""What `--json` prints."""

import json

from daybreak.finite import finite


def as_json(content: object) -> str:
    """One JSON document; what is no number is null."""
    return json.dumps(finite(content), indent=2, allow_nan=False)


def print_json(content: object) -> None:
    """One JSON document on standard output."""
    print(as_json(content))
