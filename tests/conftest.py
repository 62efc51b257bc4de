"""Makes `import corpus` work in every test."""

import sys
from pathlib import Path

# Behind the project's own root: tests/pipeline must not hide the package of that name.
sys.path.append(str(Path(__file__).parent))
