"""Notices: what happened in an interview, told to other systems until they have it."""
