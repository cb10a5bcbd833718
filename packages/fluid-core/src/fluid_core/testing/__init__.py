"""What plugin authors need to test their components: install with `pip install fluid-core[testing]`.

One suite of tests per protocol. Inherit it, say which component to test, and pytest collects the tests:

    from fluid_core.testing import HeadSuite

    class TestMyHead(HeadSuite):
        component = "my-head"

The docstring of each suite shows a complete subclass, for components found by name and for objects built by hand. Every
test says in its docstring what to look for if it fails. Suites come with the version of core they belong to: a new
version may test more.

`fluid_core.testing.tiny` holds small implementations of all protocols. The module `temporary_plugin`, and the fixture
`install_plugin`, install a plugin for the length of one test.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

try:
    import pytest
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "fluid_core.testing needs pytest: install it with `pip install fluid-core[testing]`.", name="pytest"
    ) from missing

if TYPE_CHECKING:
    from fluid_core.testing.dataset_suite import DatasetSuite
    from fluid_core.testing.encoded_dataset_suite import EncodedDatasetSuite
    from fluid_core.testing.feature_network_suite import FeatureNetworkSuite
    from fluid_core.testing.head_suite import HeadSuite
    from fluid_core.testing.order_suite import OrderSuite
    from fluid_core.testing.plugin_fixture import install_plugin
    from fluid_core.testing.text_encoder_suite import TextEncoderSuite
    from fluid_core.testing.tokenizer_suite import TokenizerSuite

_HOMES = {
    "DatasetSuite": "fluid_core.testing.dataset_suite",
    "EncodedDatasetSuite": "fluid_core.testing.encoded_dataset_suite",
    "FeatureNetworkSuite": "fluid_core.testing.feature_network_suite",
    "HeadSuite": "fluid_core.testing.head_suite",
    "OrderSuite": "fluid_core.testing.order_suite",
    "TextEncoderSuite": "fluid_core.testing.text_encoder_suite",
    "TokenizerSuite": "fluid_core.testing.tokenizer_suite",
    "install_plugin": "fluid_core.testing.plugin_fixture",
}

__all__ = [
    "DatasetSuite",
    "EncodedDatasetSuite",
    "FeatureNetworkSuite",
    "HeadSuite",
    "OrderSuite",
    "TextEncoderSuite",
    "TokenizerSuite",
    "install_plugin",
]

# Must come before these modules are imported: a failing assertion then shows the values it compared.
pytest.register_assert_rewrite(
    *(
        f"fluid_core.testing.{module}"
        for module in (
            "conformance_suite",
            "dataset_suite",
            "encoded_dataset_suite",
            "feature_network_suite",
            "global_random_state",
            "head_case",
            "head_confidence_tests",
            "head_loss_tests",
            "head_sampler_tests",
            "head_settings_tests",
            "order_suite",
            "saved_state",
            "text_encoder_suite",
            "tokenizer_case",
            "tokenizer_suite",
        )
    )
)

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
