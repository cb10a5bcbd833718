"""What the paper says of its models' sizes and of the computation they took, to print beside one's own figures."""

from collections.abc import Mapping

PAPER_CONTINUOUS_PARAMETERS: Mapping[str, float] = {
    "0.2b": 166e6,
    "0.4b": 369e6,
    "0.7b": 665e6,
    "1.1b": 1.1e9,
    "3.1b": 3.1e9,
    "10.5b": 10.5e9,
}
"""Parameters of the models with continuous tokens, by named size: table 1, and 0.2b read off figure 5 (to 1%)."""

PAPER_DISCRETE_PARAMETERS: Mapping[str, float] = {
    "0.2b": 152e6,
    "0.4b": 333e6,
    "0.7b": 621e6,
    "1.1b": 1.04e9,
    "3.1b": 3.0e9,
}
"""Those of the models with discrete tokens, read off figure 5 (to 1%); there is none of 10.5B."""

PAPER_FLOPS: Mapping[str, float] = {
    "0.2b": 7e20,
    "0.4b": 1.4e21,
    "0.7b": 2.5e21,
    "1.1b": 4e21,
    "3.1b": 1.1e22,
}
"""Training computation of the random-order continuous models over `PAPER_IMAGES`, read off figure 7 (to about 5%).

The figure's formula is GFLOPs of the model x batch x steps x 3.
"""

PAPER_BATCH_SIZE = 2048
PAPER_STEPS = 1_000_000
PAPER_IMAGES = PAPER_BATCH_SIZE * PAPER_STEPS
"""Images that a model of the paper saw in training (section 4)."""
