"""A Gaussian-mixture head for continuous tokens, as in GIVT (arXiv 2312.02116).

`fluid_gaussian_mixture.plugin` declares it to Fluid, `fluid_gaussian_mixture.head` is the head.
"""
