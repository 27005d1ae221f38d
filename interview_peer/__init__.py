"""A server that stands in the middle of a spoken AI interview, as a full WebRTC peer."""

__version__ = "0.1.0"
