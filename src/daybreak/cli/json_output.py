"""What `--json` prints."""

import json

from daybreak.finite import finite


def print_json(content: object) -> None:
    """One JSON document on standard output; what is no number is null."""
    print(json.dumps(finite(content), indent=2, allow_nan=False))
