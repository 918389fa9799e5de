"""From datasets to verdicts: the subjects, judging, and the report."""
