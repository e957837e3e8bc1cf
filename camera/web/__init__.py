"""The local page of `watch`: picture, answers and state, served to this machine."""
