"""Files that come with the package: the schema, the bundled plugins, the units of systemd."""

from __future__ import annotations

from pathlib import Path


def bundled(name: str) -> Path:
    """The folder `name` ("schema", "plugins", "systemd") of the installed package, or else of the checkout around it.

    Raises:
        FileNotFoundError: it is in neither place: the installation is incomplete.
    """
    package = Path(__file__).parent
    places = (package / "_bundled" / name, package.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"jivsd's own folder {name!r} is missing: looked for {' and '.join(map(str, places))}")
