"""The stand-in for Pulumi's Kubernetes plugin, for machines that can't fetch the official one."""
