"""Batch jobs: one module each, a configuration and `run(config)`."""
