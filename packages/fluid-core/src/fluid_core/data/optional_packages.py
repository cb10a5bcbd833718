"""Packages that only some data sets need, and what to install where one is missing."""

import importlib
from typing import Any

from fluid_core.errors import MissingPackageError


def data_package(name: str, dataset: str) -> Any:
    """The module `name`, which `dataset` needs. Raises `MissingPackageError`, naming the extra that brings it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name.partition(".")[0]:
            raise
        raise MissingPackageError(
            f"The data set '{dataset}' needs the package {name.partition('.')[0]}, which is not installed. Run: "
            "pip install 'fluid-core[data]'"
        ) from error
