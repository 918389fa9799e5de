"""Command lines: arguments in, one call, exit code out.

Imports nothing: Ctrl-C ends a command in one line only from the moment that ``start`` has been imported.
"""
