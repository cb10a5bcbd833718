"""The suite for heads."""

from fluid_core.testing.head_confidence_tests import HeadConfidenceTests
from fluid_core.testing.head_loss_tests import HeadLossTests
from fluid_core.testing.head_sampler_tests import HeadSamplerTests
from fluid_core.testing.head_settings_tests import HeadSettingsTests


class HeadSuite(HeadLossTests, HeadSamplerTests, HeadSettingsTests, HeadConfidenceTests):
    """Tests that every head must pass.

    For a head that is installed, its name is enough:

        class TestGaussianMixture(HeadSuite):
            component = "gaussian-mixture"

    For a head built by hand, say how, and for which tokens:

        class TestMyHead(HeadSuite):
            def head(self, context):
                return MyHead(context.token_space, context.width)

            def token_space(self):
                return ContinuousTokens(grid=Grid(height=3, width=4), channels=5)

    A token space that is neither continuous nor discrete also needs `example_tokens` and `invalid_tokens`. `width`,
    `learning_rate`, `num_training_steps`, `num_sampling_steps` and `tolerance` can be set in the subclass.
    """
