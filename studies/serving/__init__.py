"""Studies of serving: a real tritonserver, and what a request to it costs."""
