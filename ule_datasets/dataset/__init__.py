"""What a dataset folder holds: manifest, shards; reading, checking, finding and sending it."""
