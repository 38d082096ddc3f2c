"""Kinds of Dask clusters: how each is opened and closed."""
