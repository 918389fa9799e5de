"""What others have released, read from their files, a module per convention; matched to clean images, and checked."""
