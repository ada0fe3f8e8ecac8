"""Temporally consistent 3D human pose and shape from video (TCMR)."""

__version__ = "0.1.0"
