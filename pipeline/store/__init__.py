"""What touches the backup root: the state database, staged file operations, recovery, the lock."""
