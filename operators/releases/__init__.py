"""Releases: a version's way from nobody to everybody, and back (`machine` decides, `controller` carries it out)."""
