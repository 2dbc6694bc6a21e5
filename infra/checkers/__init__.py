"""Independent checkers over everything that a stack declares: checkov, kube-score and kubernetes-validate.

    (report,) = check(["local"], ensure(progress))

They judge rendered objects by others' experience; `infra.policy` by what Switchboard promises. An exception is made on
the object itself, with its reason beside it (`infra.components.exceptions`), never in a list far from it.
"""

from infra.checkers.run import Report, check, stacks
from infra.checkers.tools import Checkers, ensure

__all__ = ["Checkers", "Report", "check", "ensure", "stacks"]
