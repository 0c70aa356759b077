"""One logical queue over many shards: which shard a key has, and where each shard is."""
