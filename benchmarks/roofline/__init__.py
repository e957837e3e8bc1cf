"""What a graph costs at least on a device, computed from documents."""
