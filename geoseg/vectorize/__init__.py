"""Class mask to a coverage of polygons, in one pass or by parts joined at their seams.

A *node* is a grid corner where three or more of the four pixel edges are boundaries
between classes; nodata and the outside of the raster count as one more class. Every
node is a vertex of all polygons around it and other collinear corners are vertices of
none, so that neighbours share their edges vertex by vertex: a valid coverage.
"""

from __future__ import annotations

from geoseg.vectorize.absorbing import absorb_small
from geoseg.vectorize.banding import trace_bands
from geoseg.vectorize.batch import PolygonBatch
from geoseg.vectorize.joining import join_parts
from geoseg.vectorize.simplifying import simplify
from geoseg.vectorize.tracing import TracedPart, load_part, trace_part, trace_rows

__all__ = [
    "PolygonBatch",
    "TracedPart",
    "absorb_small",
    "join_parts",
    "load_part",
    "simplify",
    "trace_bands",
    "trace_part",
    "trace_rows",
]
