"""One file a component of the Pulumi program."""
