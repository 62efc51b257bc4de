"""Makes `import corpus` work in every test."""

import sys
from pathlib import Path

from hypothesis import settings

# Behind the project's own root: tests/pipeline must not hide the package of that name.
sys.path.append(str(Path(__file__).parent))

# The first call of a kernel compiles it, and shared machines stall: neither is a fault of the example at hand.
settings.register_profile("anchormix", deadline=None)
settings.load_profile("anchormix")
