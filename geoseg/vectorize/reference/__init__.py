"""The tracer in NumPy, by parts: what serves where there are no native operators."""
