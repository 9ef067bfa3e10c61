"""What reads a backup. Takes no lock and writes nothing."""
