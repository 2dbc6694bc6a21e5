"""Read by Python before any program of the drills' image: its candidates are as bad as they say."""

from operators.drills import faults

faults.install()
