"""What JSON cannot hold is null, and null is NaN again."""

import json
import math

from daybreak.finite import finite, or_nan


def test_numbers_that_json_lacks_are_null_however_deep_they_lie() -> None:
    content = {"loss": math.nan, "seeds": ({1: math.inf}, [-math.inf, 2.5]), "steps": 3, "text": "nan"}
    found = json.loads(json.dumps(finite(content), allow_nan=False))
    assert found == {"loss": None, "seeds": [{"1": None}, [None, 2.5]], "steps": 3, "text": "nan"}


def test_null_is_read_as_nan() -> None:
    assert or_nan(2) == 2.0
    assert math.isnan(or_nan(None))
    assert math.isnan(or_nan("2"))
