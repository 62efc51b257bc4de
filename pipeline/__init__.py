"""Which stages run, with which settings, where; and what people see of it."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("anchormix")
except PackageNotFoundError:  # imported from a checkout that was never installed
    __version__ = "0+unknown"
