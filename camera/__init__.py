"""Frames from files, folders and cameras, streamed through a runtime."""
