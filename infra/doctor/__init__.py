"""`switchboard doctor`: what is wrong with machine, tools, sites and stack, and how to mend it.

    report = examine("local")
    print(table(report))            # or report.model_dump_json()

Each area has a module: facts gathered by its `look`, judged by its `judge`, which is a pure function of them.
"""

from infra.doctor.report import Finding, Report, Verdict, table
from infra.doctor.run import examine

__all__ = ["Finding", "Report", "Verdict", "examine", "table"]
