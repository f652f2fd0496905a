"""Seeded chaos on a real cluster: operations, faults, a recorded history, and a checker of it.

`plan` says what will be done (pure), `operations` and `faults` do it, `history` records it,
`twins` draws every picture again undisturbed, `checker` judges (pure); `run` is the command.
docs/internals/chaos.md says what is promised and what a seed does and does not fix.
"""
