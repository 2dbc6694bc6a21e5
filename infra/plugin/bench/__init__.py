"""How much the stand-in costs: the same objects by Pulumi and by plain server-side applies, side by side.

    python -m infra.plugin.bench --objects 1000

In one run and on one API server, in turn: plain applies (`raw`), Pulumi with a plugin that only echoes (`engine`: what
Pulumi's engine, its language host and the program cost by themselves), and Pulumi with the stand-in (`plugin`);
`engine-` and `plugin-` are the same with one write of the state file, at the end. Each side creates the objects, runs
again with nothing to do, and changes a label of every one.
"""
