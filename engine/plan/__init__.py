"""Parsers of kernel plans: what the compiler says that it made."""
