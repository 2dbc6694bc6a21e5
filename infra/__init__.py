"""What is there: the Pulumi program, its components and the stack configuration; `local` is the embedded cloud."""
