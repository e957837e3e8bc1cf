"""Examination of a machine: which parts work, and the commands that mend the others."""
