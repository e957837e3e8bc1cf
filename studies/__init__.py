"""What writes the tables and pictures of docs/ and the figures of benchmarks/results/. Nothing imports it."""
