"""What a stack must not do: a CrossGuard policy pack, asked by `pulumi preview` and `pulumi up` for every resource.

The rules are pure functions of manifests (`rules`, `recovery`); `__main__` is the pack that Pulumi runs.
"""
