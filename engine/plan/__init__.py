"""Kernel plans: their parsers, and figures drawn from them."""
