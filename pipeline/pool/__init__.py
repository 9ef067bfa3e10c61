"""How the work is spread: processes, one-way pipes, the order restored, deaths survived."""
