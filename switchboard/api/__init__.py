"""The custom resources' parts as pydantic models: what users write, checked where it is read.

`scaling` is how a model server is sized.
"""
