"""What everything rests on: errors, files, seeds, progress, checkpoints, the version."""
