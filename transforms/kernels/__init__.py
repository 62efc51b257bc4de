"""Compiled, Beam-free computation on batches: numpy, Arrow, numba.

Kernels are compiled once and cached beside their source. Where that folder cannot be written (a worker image,
a read-only install) the cache goes to a folder of the current user's below the temporary directory instead;
numba reads the variable when it is first imported, so this module must come first, and it does: every kernel
lives below it.
"""

import os
import tempfile
from pathlib import Path

if "NUMBA_CACHE_DIR" not in os.environ and not os.access(Path(__file__).parent, os.W_OK):
    os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"anchormix-numba-{os.getuid()}")
