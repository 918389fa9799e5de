"""The verification report: what it tells, the papers' tables, its pictures, and how all of that is written."""
