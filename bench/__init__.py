"""Measures what the server costs and how late it makes packets; ``python -m bench``.

Not part of the package: nothing here is imported by a running server.
"""
