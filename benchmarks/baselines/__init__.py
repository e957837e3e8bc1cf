"""Programs that are timed beside ours."""
