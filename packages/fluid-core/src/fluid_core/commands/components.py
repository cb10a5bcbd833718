"""`fluid components`: what is installed, and what is wrong with it."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from typing import Any

from fluid_core.catalog import ComponentCatalog, Conflict
from fluid_core.discovery import DISABLED_PLUGINS_VARIABLE, KINDS


def list_components(arguments: Sequence[str]) -> None:
    """List the installed components, and every plugin that failed and why, as the command line `arguments` ask.

    Ends with `SystemExit` for arguments that can not be understood, and for `--help`.
    """
    parser = argparse.ArgumentParser(
        prog="fluid components",
        description="List the installed components, and every plugin that failed and why.",
        epilog='The exit code is 0 even if plugins failed: the list is still right. Programs look at "failures" and '
        '"conflicts".',
        allow_abbrev=False,
    )
    parser.add_argument("--kind", help=f"list one kind only: {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    asked = parser.parse_args(arguments)
    kind = asked.kind
    # What a plugin prints while it is imported must not get between a program and its JSON.
    with contextlib.redirect_stdout(sys.stderr):
        catalog = ComponentCatalog.discover()
    listed = catalog.components(kind)
    conflicts = tuple(conflict for conflict in catalog.conflicts() if kind in (None, conflict.kind))
    if asked.json:
        rows = [
            {
                "kind": one.kind,
                "name": one.name,
                "distribution": one.distribution,
                "version": one.version,
                "summary": one.component.summary,
            }
            for one in listed
        ]
        print(json.dumps(_document(rows, conflicts, catalog), indent=2, ensure_ascii=False))  # noqa: T201
        return

    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    for column in ("kind", "name", "distribution", "version"):
        table.add_column(column, no_wrap=True)
    table.add_column("summary")
    for one in listed:
        # Escaped by printing as plain text: a summary may hold square brackets.
        table.add_row(*map(_plain, (one.kind, one.name, one.distribution, one.version, one.component.summary)))
    console.print(table)
    for title, lines, style in (
        ("Plugins that failed", [str(failure) for failure in catalog.failures], "red"),
        ("Conflicts", [str(conflict) for conflict in conflicts], "red"),
        (f"Disabled by {DISABLED_PLUGINS_VARIABLE}", [str(plugin) for plugin in catalog.disabled], "yellow"),
        (
            f"In {DISABLED_PLUGINS_VARIABLE}, but not installed",
            [f"'{name}'" for name in catalog.unknown_disabled],
            "yellow",
        ),
    ):
        if lines:
            console.print(f"\n{title}:", style=style)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _document(rows: list[dict[str, str]], conflicts: tuple[Conflict, ...], catalog: ComponentCatalog) -> dict[str, Any]:
    """The JSON document: rows of the table, and everything that is wrong."""
    return {
        "components": rows,
        "failures": [
            {
                "plugin": failure.plugin,
                "distribution": failure.distribution,
                "version": failure.version,
                "cause": failure.cause,
            }
            for failure in catalog.failures
        ],
        "conflicts": [
            {
                "kind": conflict.kind,
                "name": conflict.name,
                "distributions": [one.distribution for one in conflict.providers],
            }
            for conflict in conflicts
        ],
        "disabled": [plugin.plugin for plugin in catalog.disabled],
    }


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)
