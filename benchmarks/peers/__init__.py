"""What the comparisons with other tools share: their environments, calls and results, and the exact truth."""
