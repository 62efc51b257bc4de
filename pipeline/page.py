"""The frame of every page: one file that loads nothing."""

from __future__ import annotations

__all__ = ["whole_page"]

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>{{style}}</style>
</head>
<body>
{{body}}
</body>
</html>
"""


def whole_page(title: str, style: str, body: str) -> str:
    """`body` is HTML, escaped by whoever wrote it; it comes last, so that braces in it mean nothing."""
    return _FRAME.replace("{{title}}", title).replace("{{style}}", style).replace("{{body}}", body)
