"""The frozen values that travel along the line of stations. Imports nothing of ours."""
