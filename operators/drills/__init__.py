"""Drills: candidates that are bad on purpose are released, and what becomes of them is scored.

The folder `candidates` says in what way each is bad. What is wrong with a model is trained into it; what is wrong with
its process (it crashes, waits, leaks, refuses) is done by `faults`, in the drills' own image alone: Switchboard's image
with `image/` before all else on Python's path. In any other image such a version serves as well as the model it is.
"""
