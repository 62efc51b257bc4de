"""`python -m pipeline` is `anchormix`."""

from pipeline.cli import main

main(prog_name="anchormix")
