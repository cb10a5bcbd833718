"""`fluid diagnose`: looks for the failures that the paper and its users met, and says in words what it found.

Start at `signatures`, the list of what is looked for; each has a file of its own, which measures and judges.
`evidence` is what they look at, `gathering` where it comes from, `diagnosis_run` the whole.
"""
