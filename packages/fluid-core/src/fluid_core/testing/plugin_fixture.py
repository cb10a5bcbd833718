"""The pytest fixture `install_plugin`, to be imported in a `conftest.py`."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from fluid_core.testing.temporary_plugin import temporary_plugin


@pytest.fixture
def install_plugin(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Path]:
    """A function that installs a plugin until the test ends.

    It takes the arguments of `temporary_plugin` except the folder, and returns the folder with all plugins
    installed.
    """
    # Not a generator: wrappers that check types at run time would hide from pytest that it is one.
    installed = ExitStack()
    request.addfinalizer(installed.close)  # noqa: PT021
    folder = tmp_path / "site"

    def install(source: str, **names: str) -> Path:
        return installed.enter_context(temporary_plugin(source, folder=folder, **names))

    return install
