"""Does it hold: Locust users, shapes and verdicts.

Locust runs in a process of its own (it replaces the standard library's sockets); only the modules that it loads import
it.
"""
