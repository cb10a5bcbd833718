"""The head keeps the contract of every head: the suite of core, run on the installed component."""

from fluid_core.testing import HeadSuite


class TestGaussianMixture(HeadSuite):
    """All tests of `HeadSuite`, found through the catalog."""

    component = "gaussian-mixture"
