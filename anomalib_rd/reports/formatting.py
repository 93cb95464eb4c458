"""Numbers as text, the same in terminal, files and HTML; undefined ones (None, NaN) are a dash."""

import math

MISSING = "–"
NO_REASON = "no error message recorded"


def format_percent(fraction: float | None, std: float | None = None) -> str:
    """A fraction in percent, "98.12", with its standard deviation, "98.12±0.30", if defined."""
    if fraction is None or math.isnan(fraction):
        return MISSING
    return f"{100 * fraction:.2f}{format_std(std)}"


def format_std(std: float | None) -> str:
    """A standard deviation in percentage points, "±0.30"; empty if undefined."""
    return "" if std is None or math.isnan(std) else f"±{100 * std:.2f}"


def format_points(difference: float | None) -> str:
    """A difference of two fractions in percentage points with its sign, "+0.42"."""
    return MISSING if difference is None or math.isnan(difference) else f"{100 * difference:+.2f}"


def format_duration(seconds: float | None) -> str:
    """Such as "2 h 05 min", "3 min 10 s", "5 min", "40 s", "3.2 s"."""
    if seconds is None or math.isnan(seconds):
        return MISSING
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_rest = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_rest:02} min"
    if minutes:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    return f"{rest} s"


def format_time_left(seconds: float) -> str:
    """An estimate, rounded to minutes: "about 12 min", "less than a minute"."""
    minutes = round(seconds / 60)
    return f"about {format_duration(60 * minutes)}" if minutes else "less than a minute"


def format_rate(per_second: float | None) -> str:
    """Images per second: "123", "12.3"."""
    if per_second is None or math.isnan(per_second):
        return MISSING
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.1f}"


def format_count(number: int, noun: str, plural: str | None = None) -> str:
    """Such as "1 run", "3 runs"; a plural that is not formed by "s" must be given."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def format_bytes(size: float) -> str:
    """Such as "512 B", "3.4 MiB"."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def format_published(percent: float | None) -> str:
    """A published value, in percent, with the decimals it has: one or two, but "100"."""
    if percent is None:
        return MISSING
    text = f"{percent:.2f}"
    return "100" if text == "100.00" else text.removesuffix("0")
