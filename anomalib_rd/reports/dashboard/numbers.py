"""How the page writes numbers: percent with two decimals, as the other reports do."""

import math

MISSING = "–"


def percent(fraction: float) -> str:
    """A fraction in percent; a dash where it is undefined."""
    return MISSING if math.isnan(fraction) else f"{100 * fraction:.2f}"


def spread(std: float) -> str:
    """A standard deviation in percentage points; nothing for one seed."""
    return "" if math.isnan(std) else f"±{100 * std:.2f}"


def points(fraction: float) -> str:
    """A difference in percentage points, with its sign."""
    return MISSING if math.isnan(fraction) else f"{100 * fraction:+.2f}".replace("-", "−")


def seconds(value: float | None) -> str:
    """A duration."""
    if value is None or math.isnan(value):
        return MISSING
    if value >= 3600:
        return f"{value // 3600:.0f} h {value % 3600 // 60:.0f} min"
    if value >= 300:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"


def rate(value: float | None) -> str:
    """Images a second."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
