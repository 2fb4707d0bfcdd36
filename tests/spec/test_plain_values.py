"""What JSON cannot hold goes as text."""

import math
from types import MappingProxyType

from tfleet.spec.plain import plain


def test_numbers_that_are_none_become_text_wherever_they_are():
    values = MappingProxyType({"loss": math.nan, "of": ({"a": -math.inf}, [math.inf, 1.5, 2, True, None, "nan"])})
    assert plain(values) == {"loss": "nan", "of": [{"a": "-inf"}, ["inf", 1.5, 2, True, None, "nan"]]}
