"""How many replicas a model server should have: a pure policy. `decide` is all that the operator needs."""

from operators.scaling.policy import begin, decide
from operators.scaling.values import Capacity, Decision, Move, Observation, State

__all__ = ["Capacity", "Decision", "Move", "Observation", "State", "begin", "decide"]
