"""Beam imported without its connectors to services that no mix is read from or written to.

Beam does without those whose client is not installed. The clients of two are always installed, and importing these
takes a twentieth of the time of a small run. Whoever imports them by name afterwards gets them; in this process
`apache_beam.io` has no short names for what comes with them, Pub/Sub's among it.
"""

from __future__ import annotations

import logging
import sys

_CONNECTORS = ("bson", "apache_beam.io.gcp.bigquery")  # Beam takes the former for MongoDB's


def _import_beam() -> None:
    if "apache_beam" in sys.modules:
        return
    hidden = [name for name in _CONNECTORS if name not in sys.modules]
    said = logging.getLogger("apache_beam.io.mongodbio")
    said.disabled = True  # that it misses its client
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: not to be found
    try:
        import apache_beam  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
        said.disabled = False


_import_beam()
