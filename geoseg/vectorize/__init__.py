"""Class mask to a coverage of polygons, by parts that are joined at their seams.

A *node* is a grid corner where three or more of the four pixel edges are boundaries
between classes; nodata and the outside of the raster count as one more class. Every
node is a vertex of all polygons around it and other collinear corners are vertices of
none, so that neighbours share their edges vertex by vertex: a valid coverage.
"""

from __future__ import annotations

from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.joining import join_open, join_parts
from geoseg.vectorize.part import TracedPart
from geoseg.vectorize.tracing import trace_part

__all__ = ["PolygonBatch", "TracedPart", "join_open", "join_parts", "trace_part"]
