"""The only code that opens files: scenes in; rasters, polygons and metadata out."""
