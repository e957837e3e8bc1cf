"""Which engine files may run here: index, trust store, signatures, admission."""
