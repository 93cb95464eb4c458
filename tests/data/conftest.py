"""Fixtures for the tests of data sets."""

from collections.abc import Callable
from pathlib import Path

import pytest
from image_trees import mvtec_category


@pytest.fixture
def mvtec_root(tmp_path: Path) -> Path:
    """MVTec's layout with two objects and one texture."""
    for category in ("bottle", "carpet", "capsule"):
        mvtec_category(tmp_path / "mvtec" / category)
    return tmp_path / "mvtec"


@pytest.fixture
def one_line() -> Callable[[pytest.ExceptionInfo[Exception]], str]:
    """The message of a UserError, after asserting that it is one line."""

    def check(info: pytest.ExceptionInfo[Exception]) -> str:
        message = str(info.value)
        assert message and "\n" not in message
        return message

    return check
