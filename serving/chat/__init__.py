"""The chat service: `python -m serving.chat` is one replica.

`wire` is its contract, `app` the handler, `service` the BentoML service around it, `server` the process.
"""
