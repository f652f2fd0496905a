"""The pieces of scripts/cluster.py: options, processes, nodes, the control node, the demo."""
