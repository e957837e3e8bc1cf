"""Trust in engine files: index, trust store, signatures, admission."""
