"""Everything that a person or a script sees: command line, progress, JSON lines, run log.

The only room that prints and the only one that imports rich, and that only where something of it is shown.
"""
