import math

import pytest

from anomalib_rd.reports import formatting

NAN = math.nan


@pytest.mark.parametrize(
    ("function", "values", "texts"),
    [
        ("format_percent", [0.98123, 1.0, NAN, None], ["98.12", "100.00", "–", "–"]),
        ("format_std", [0.00301, NAN], ["±0.30", ""]),
        ("format_points", [0.01234, -0.005, NAN], ["+1.23", "-0.50", "–"]),
        (
            "format_duration",
            [0.31, 9.97, 43.6, 300, 754, 7500, -1, NAN],
            ["0.3 s", "10 s", "44 s", "5 min", "12 min 34 s", "2 h 05 min", "0.0 s", "–"],
        ),
        (
            "format_time_left",
            [5, 60, 3599, 7500],
            ["less than a minute", "about 1 min", "about 1 h 00 min", "about 2 h 05 min"],
        ),
        ("format_rate", [12.34, 512.3, NAN], ["12.3", "512", "–"]),
        ("format_bytes", [0, 1023, 1536, 3 * 2**30], ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]),
        (
            "format_published",
            [98.46, 98.5, 99.0, 100.0, None],
            ["98.46", "98.5", "99.0", "100", "–"],
        ),
    ],
)
def test_numbers_as_text(function, values, texts):
    assert [getattr(formatting, function)(value) for value in values] == texts


def test_percent_with_standard_deviation_and_counts():
    assert formatting.format_percent(0.98123, 0.003) == "98.12±0.30"
    assert formatting.format_percent(0.98123, NAN) == "98.12"
    assert formatting.format_count(1, "run") == "1 run"
    assert formatting.format_count(0, "category", "categories") == "0 categories"
