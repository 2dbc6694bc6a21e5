"""The node agent of the embedded cloud: a small kubelet that runs the containers of its pods as processes."""
