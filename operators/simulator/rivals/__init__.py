"""The autoscalers that Switchboard is compared with, each with its published algorithm and defaults.

All aim at the same share of a replica's capacity (Knative's default, 70 %), see the same samples and have the same
bounds. A rival is a class with `every_s`, `decide` and `restart`, as `base.Autoscaler` says.
"""

from operators.simulator.rivals.base import Autoscaler, Bounds, Target
from operators.simulator.rivals.hpa import HpaOnConcurrency, HpaOnRate
from operators.simulator.rivals.keda import Keda
from operators.simulator.rivals.kpa import Kpa
from operators.simulator.rivals.ray import RayServe

__all__ = ["Autoscaler", "Bounds", "HpaOnConcurrency", "HpaOnRate", "Keda", "Kpa", "RayServe", "Target"]
