"""The offline gate: what a model must show before it may reach a customer, declared in a file for each model.

gate = spec.load("chat-intent")                    # models/gates/chat-intent.yaml
verdict = judge(gate, evidence)                    # pure; evidence is gathered by `models.gates.gathering`
verdict.passed, [line.found for line in verdict.lines]
"""
