"""Class masks compared with labels: counts, metrics, intervals and their report."""
