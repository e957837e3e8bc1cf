"""Studies of backends on a CPU."""
