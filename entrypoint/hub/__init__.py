"""The model hub: listings, headers by range requests, the local cache."""
