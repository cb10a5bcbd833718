"""The pytest fixture `install_plugin`, to be imported in a `conftest.py`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fluid_core.testing.temporary_plugin import temporary_plugin


@pytest.fixture
def install_plugin(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """A function that installs a plugin until the test ends.

    It takes the arguments of `temporary_plugin` except the folder, and returns the folder with all plugins
    installed.
    """
    folder = tmp_path / "site"
    with ExitStack() as installed:
        yield lambda source, **names: installed.enter_context(
            temporary_plugin(source, folder=folder, **names)
        )
