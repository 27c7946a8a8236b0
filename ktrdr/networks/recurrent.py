"""Networks that read a window of rows one after the other."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ktrdr.networks.base import NETWORKS, Network

if TYPE_CHECKING:
    from torch import nn


class Recurrent(Network):
    """Recurrent layers; then Dropout and Linear to the outputs (logits) on the last row's hidden state.

    Between the layers, if there are several, each row's hidden state goes through Dropout too.
    """

    _gates: ClassVar[int]
    """Weight matrices per layer and input."""

    sequence_length: Annotated[int, Field(ge=1, le=4096)]
    """Consecutive rows that make one input; the label is that of the last."""
    hidden_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Units of each layer."""
    num_layers: Annotated[int, Field(ge=1, le=32)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of a hidden state that is zeroed in training."""

    @property
    def window(self) -> int:
        """The sequence length."""
        return self.sequence_length

    def parameter_count(self, inputs: int, outputs: int) -> int:
        """Return the number of weights and biases."""
        hidden = self.hidden_size
        per_layer = self._gates * hidden
        first = per_layer * (inputs + hidden + 2)
        others = (self.num_layers - 1) * per_layer * (2 * hidden + 2)
        return first + others + (hidden + 1) * outputs


@NETWORKS.register("lstm")
class Lstm(Recurrent):
    """Long short-term memory.

    Source: Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997), with forget gates, as `torch.nn.LSTM`.
    """

    _gates: ClassVar[int] = 4

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        """Return the network, freshly initialised from torch's current random state."""
        from torch import nn

        from ktrdr.networks.recurrent_module import RecurrentModule

        return RecurrentModule(nn.LSTM, inputs, outputs, self)


@NETWORKS.register("gru")
class Gru(Recurrent):
    """Gated recurrent units: much as an LSTM, with three quarters of its parameters.

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014), as `torch.nn.GRU`.
    """

    _gates: ClassVar[int] = 3

    def build(self, inputs: int, outputs: int) -> "nn.Module":
        """Return the network, freshly initialised from torch's current random state."""
        from torch import nn

        from ktrdr.networks.recurrent_module import RecurrentModule

        return RecurrentModule(nn.GRU, inputs, outputs, self)
