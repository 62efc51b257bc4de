"""`python -m pipeline` is `anchormix`."""

from pipeline.cli import console

console()
