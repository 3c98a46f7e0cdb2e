"""Numbers as people read them."""

import math

MINUS = "\N{MINUS SIGN}"
NOTHING = "–"
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: float | None, digits: int = 0) -> str:
    """With so many digits behind the point and commas between thousands; a dash for what is missing."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return f"{MINUS if value < 0 else ''}∞"
    return f"{value:,.{digits}f}".replace("-", MINUS)


def significant(value: float | None, digits: int = 3) -> str:
    """With so many digits that count: `0.0123`, `1,230`, `1.23 × 10⁻⁷`."""
    if value is None or not math.isfinite(value):
        return number(value)
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if not -5 < exponent < 9:
        return scientific(value, digits)
    return number(round(value, digits - 1 - exponent), max(0, digits - 1 - exponent))


def scientific(value: float, digits: int = 3) -> str:
    """`1.23 × 10¹³`."""
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    return f"{mantissa.replace('-', MINUS)} × {power(int(exponent))}"


def power(exponent: int) -> str:
    """`10¹³`."""
    return f"10{str(exponent).translate(_SUPERSCRIPTS)}"


def percent(share: float | None, digits: int = 1) -> str:
    return NOTHING if share is None or not math.isfinite(share) else f"{number(100 * share, digits)} %"


def plainly(value: float, below: float = 1e7) -> str:
    """A tick of an axis: all its digits and no more; far from 1, and where it is not below this, as `2·10⁻⁵`."""
    if value and not 1e-4 <= abs(value) < below:
        mantissa, _, exponent = f"{value:.9e}".partition("e")
        times = {1.0: "", -1.0: MINUS}.get(float(mantissa), f"{float(mantissa):g}·".replace("-", MINUS))
        return f"{times}{power(int(exponent))}"
    return f"{value:,.10g}".replace("-", MINUS)


def signed(value: float | None, digits: int) -> str:
    """With its sign, `+0.0123`."""
    text = number(value, digits)
    return f"+{text}" if value is not None and value > 0 else text
