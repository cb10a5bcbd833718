"""The packages the pictures come from, and what their authors ask for."""

import attrs


@attrs.frozen(kw_only=True)
class Source:
    """One npm package, pinned, since names and counts belong to one version."""

    package: str
    version: str
    holds: str
    licence: str
    attribution: str
    """What to write beside copies of it."""

    style: str | None = None
    """The drawing style it brings; None if it brings words."""

    pictures: str = ""
    """The folder of its pictures within the package."""

    num_pictures: int = 0
    """How many of its pictures belong to the groups that are kept."""

    @property
    def specifier(self) -> str:
        """As npm wants it: `name@version`."""
        return f"{self.package}@{self.version}"


NOTO = Source(
    package="emoji-datasource-google",
    version="16.0.0",
    holds="drawings (64 x 64), names and groups",
    licence="Apache License 2.0 (drawings), MIT (names and groups)",
    attribution=(
        "Noto Emoji, copyright Google Inc., https://github.com/googlefonts/noto-emoji, Apache License 2.0, "
        "https://www.apache.org/licenses/LICENSE-2.0. Packaged by Cal Henderson, "
        "https://github.com/iamcal/emoji-data, MIT License."
    ),
    style="noto",
    pictures="img/google/64",
    num_pictures=1026,
)
TWEMOJI = Source(
    package="emoji-datasource-twitter",
    version="16.0.0",
    holds="drawings (64 x 64)",
    licence="Creative Commons Attribution 4.0 (drawings)",
    attribution=(
        "Twemoji, copyright Twitter, Inc and other contributors, https://github.com/jdecked/twemoji, licensed under "
        "CC-BY 4.0, https://creativecommons.org/licenses/by/4.0/. Packaged by Cal Henderson, "
        "https://github.com/iamcal/emoji-data, MIT License."
    ),
    style="twemoji",
    pictures="img/twitter/64",
    num_pictures=1026,
)
FLUENT = Source(
    package="@lobehub/fluent-emoji-3d",
    version="1.1.0",
    holds="drawings (256 x 256)",
    licence="MIT, as its package states",
    attribution=(
        "Fluent Emoji, copyright Microsoft Corporation, https://github.com/microsoft/fluentui-emoji, MIT License. "
        "Packaged by LobeHub, https://github.com/lobehub/fluent-emoji, MIT License."
    ),
    style="fluent",
    pictures="assets",
    num_pictures=1015,
)
WORDS = Source(
    package="emojilib",
    version="4.0.3",
    holds="plain names and keywords",
    licence="MIT",
    attribution="emojilib, copyright Mu-An Chiou, https://github.com/muan/emojilib, MIT License.",
)

SOURCES = (NOTO, TWEMOJI, FLUENT, WORDS)


def attribution_text() -> str:
    """The text of ATTRIBUTION.txt."""
    lines = [
        "Emoji pictures and names, as fetched by `python -m fluid_emoji.fetch`.",
        "They are not part of Fluid and stay under the licences of their authors.",
        "",
    ]
    for source in SOURCES:
        where = f"{source.style}/" if source.style else "index.json"
        lines += [
            f"{where}: {source.holds}, from the npm package {source.specifier}",
            f"  Licence: {source.licence}",
            f"  {source.attribution}",
            "",
        ]
    lines += [
        "Changes: only some groups of emoji are kept, Fluent pictures are stored as PNG, and names are put in plain",
        "words. The data sets of fluid-emoji crop, resize, recolour and compose the pictures further.",
    ]
    return "\n".join(lines) + "\n"
