"""The stations of the line: scanner, hasher, committer."""
