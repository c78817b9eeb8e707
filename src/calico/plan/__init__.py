"""What one host should look like, for its kernel and its daemons. Pure."""
