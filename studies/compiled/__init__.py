"""What a compiler makes of the graphs, without a card."""
