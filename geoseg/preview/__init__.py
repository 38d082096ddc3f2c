"""Pictures of results: the scene, its classes, and the outlines of its polygons."""

from geoseg.preview.figure import is_stacked, render
from geoseg.preview.paint import Stretch, choose_stretch, most_diverse, stretched
from geoseg.preview.subject import Share, Subject, View

__all__ = [
    "Share",
    "Stretch",
    "Subject",
    "View",
    "choose_stretch",
    "is_stacked",
    "most_diverse",
    "render",
    "stretched",
]
