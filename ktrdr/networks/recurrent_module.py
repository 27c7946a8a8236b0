"""The module of an LSTM or GRU; imported when one is built, as it needs torch."""

from torch import Tensor, nn

from ktrdr.networks.recurrent import Recurrent


class RecurrentModule(nn.Module):
    """See `Recurrent`."""

    def __init__(
        self, kind: type[nn.LSTM] | type[nn.GRU], inputs: int, outputs: int, network: Recurrent
    ) -> None:
        super().__init__()
        self.recurrent = kind(
            inputs,
            network.hidden_size,
            network.num_layers,
            batch_first=True,
            dropout=network.dropout if network.num_layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(network.dropout)
        self.output = nn.Linear(network.hidden_size, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """From (batch, window, feature), or (batch, feature) for a window of one, to (batch, output)."""
        if inputs.dim() == 2:
            inputs = inputs.unsqueeze(1)
        states: Tensor
        states, _ = self.recurrent(inputs)  # (batch, window, hidden), of the last layer
        outputs: Tensor = self.output(self.dropout(states[:, -1]))
        return outputs
