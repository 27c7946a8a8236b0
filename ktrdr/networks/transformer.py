"""A small Transformer encoder: every row of a window looks at every other."""

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from ktrdr.networks.base import NETWORKS, Network

if TYPE_CHECKING:
    from torch import nn


@NETWORKS.register("transformer")
class Transformer(Network):
    """Linear to ``hidden_size`` and a learnt vector per position; then layers of self-attention.

    Each layer adds to its rows attention and then two Linears with a GELU between, both on normalized rows
    (pre-norm) and with Dropout. Norm and Linear to the outputs (logits) are on the last row.

    There is no causal mask: when the last row is there, so is the whole window, and a row that sees the later
    ones of it tells the last row more.

    Source: Vaswani et al., "Attention Is All You Need" (2017); norms as Xiong et al., "On Layer Normalization
    in the Transformer Architecture" (2020).
    """

    sequence_length: Annotated[int, Field(ge=1, le=1024)]
    """Consecutive rows that make one input; the label is that of the last."""
    hidden_size: Annotated[int, Field(ge=1, le=2048)] = 64
    """Numbers per row; a multiple of ``num_heads``."""
    num_layers: Annotated[int, Field(ge=1, le=32)] = 2
    num_heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Each attends with its part of the numbers."""
    feedforward_size: Annotated[int, Field(ge=1, le=8192)] = 128
    """Units between the two Linears of a layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share that is zeroed in training, of attention weights and of what a layer adds."""

    @model_validator(mode="after")
    def _heads_divide_the_size(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size ({self.hidden_size}) must be a multiple of num_heads ({self.num_heads})"
            )
        return self

    @property
    def window(self) -> int:
        """The sequence length."""
        return self.sequence_length

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        """Return the network, freshly initialised from torch's current random state."""
        from ktrdr.networks.transformer_module import TransformerModule

        return TransformerModule(inputs, outputs, self)

    def parameter_count(self, inputs: int, outputs: int) -> int:
        """Return the number of weights, biases and positions."""
        hidden, between = self.hidden_size, self.feedforward_size
        norm = 2 * hidden
        attention = (hidden + 1) * 4 * hidden
        feedforward = (hidden + 1) * between + (between + 1) * hidden
        return (
            (inputs + 1 + self.sequence_length) * hidden
            + self.num_layers * (2 * norm + attention + feedforward)
            + norm
            + (hidden + 1) * outputs
        )
