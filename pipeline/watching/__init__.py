"""Real-time backup: what the system tells of changes becomes runs over just those paths."""
