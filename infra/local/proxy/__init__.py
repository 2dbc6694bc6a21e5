"""The Service proxy of an embedded site: every ClusterIP answers, and leads to the ready pods behind it."""
