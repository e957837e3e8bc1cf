"""What of this machine works, and the command that mends what does not."""
