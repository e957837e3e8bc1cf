"""Commands that write tables and pictures of docs/ and figures of benchmarks/results/."""
