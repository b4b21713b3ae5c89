"""Load and cost measurements; the tables are in docs/performance.md."""
