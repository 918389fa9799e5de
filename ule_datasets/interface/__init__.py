"""What people call from Python, and what the commands have in common with it; like these, it knows the catalogue."""
