"""Installs a plugin for the length of a test, so that discovery is exercised as it happens for users.

Nothing is mocked: a distribution (a `.dist-info` folder with metadata and entry points) and a module are
written to a folder, the folder joins `sys.path`, and `importlib.metadata` finds them there. A program started
with the folder in `PYTHONPATH` finds them as well.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

from fluid_core.catalog import installed_components
from fluid_core.hookspecs import ENTRY_POINT_GROUP


@contextmanager
def temporary_plugin(
    source: str,
    *,
    folder: Path,
    distribution: str = "temporary-plugin",
    version: str = "1.0",
    plugin: str | None = None,
    entry_point: str | None = None,
) -> Iterator[Path]:
    """Install a plugin whose module has the text `source`; yields `folder`, which may hold several plugins.

    The module is named as the distribution, with underscores. `plugin` is the name of the entry point (the
    distribution's name by default) and `entry_point` what it points to (the module by default). The cached
    catalog of the process is forgotten on entry and exit.
    """
    module = distribution.replace("-", "_")
    information = folder / f"{module}-{version}.dist-info"
    information.mkdir(parents=True)
    (folder / f"{module}.py").write_text(dedent(source), encoding="utf-8")
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
    )
    (information / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\n{plugin or distribution} = {entry_point or module}\n", encoding="utf-8"
    )
    search_path = str(folder)
    sys.path.insert(0, search_path)
    _forget_what_was_found()
    try:
        yield folder
    finally:
        sys.path.remove(search_path)
        for name, loaded in list(sys.modules.items()):
            file = getattr(loaded, "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]
        _forget_what_was_found()


def _forget_what_was_found() -> None:
    importlib.invalidate_caches()
    installed_components.cache_clear()
