"""What papers print, as data, and the rules by which a number, an effect or a statement is confirmed.

A new paper is a file of claims, KEY.toml, and its key in ``claims.PAPERS``. Statements that compare several cells are
in KEY.py beside it, and their table in ``statements.COMPARISONS``; others are judged by an analysis that names them.
"""
