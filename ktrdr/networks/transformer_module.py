"""The module of a Transformer; imported when one is built, as it needs torch."""

import torch
from torch import Tensor, nn

from ktrdr.networks.transformer import Transformer


class TransformerModule(nn.Module):
    """See `Transformer`."""

    def __init__(self, inputs: int, outputs: int, network: Transformer) -> None:
        super().__init__()
        hidden = network.hidden_size
        self.embed = nn.Linear(inputs, hidden)
        self.positions = nn.Parameter(torch.empty(network.sequence_length, hidden))
        # Not from a normal distribution: drawing one without memory, as for a model that is loaded, has torch
        # import a compiler first (2.4 s, 74 MB).
        nn.init.uniform_(self.positions, -0.04, 0.04)
        self.layers = nn.ModuleList(_Layer(network) for _ in range(network.num_layers))
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """From (batch, window, feature), or (batch, feature) for a window of one, to (batch, output)."""
        if inputs.dim() == 2:
            inputs = inputs.unsqueeze(1)
        rows = self.embed(inputs) + self.positions  # (batch, window, hidden)
        *layers, last = self.layers
        for layer in layers:
            rows = layer(rows, rows.shape[1])
        # Nobody looks at what the last layer makes of the other rows.
        rows = last(rows, 1)
        outputs: Tensor = self.output(self.norm(rows[:, -1]))
        return outputs


class _Layer(nn.Module):
    def __init__(self, network: Transformer) -> None:
        super().__init__()
        hidden, between = network.hidden_size, network.feedforward_size
        self.attention_norm = nn.LayerNorm(hidden)
        self.attention = _Attention(network)
        self.feedforward_norm = nn.LayerNorm(hidden)
        self.feedforward = nn.Sequential(
            nn.Linear(hidden, between),
            nn.GELU(),
            nn.Dropout(network.dropout),
            nn.Linear(between, hidden),
        )
        self.dropout = nn.Dropout(network.dropout)

    def forward(self, rows: Tensor, wanted: int) -> Tensor:
        """From (batch, window, hidden) to the last ``wanted`` rows: (batch, wanted, hidden)."""
        seen = self.attention(self.attention_norm(rows), wanted)
        rows = rows[:, -wanted:] + self.dropout(seen)
        added: Tensor = self.dropout(self.feedforward(self.feedforward_norm(rows)))
        return rows + added


class _Attention(nn.Module):
    """Written out: of torch's fused kernels, not all have a deterministic gradient on every device."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self._heads = network.num_heads
        self.queries = nn.Linear(network.hidden_size, network.hidden_size)
        self.keys_values = nn.Linear(network.hidden_size, 2 * network.hidden_size)
        self.dropout = nn.Dropout(network.dropout)
        self.output = nn.Linear(network.hidden_size, network.hidden_size)

    def forward(self, rows: Tensor, wanted: int) -> Tensor:
        batch, window, hidden = rows.shape
        size = hidden // self._heads
        queries = self.queries(rows[:, -wanted:]).view(batch, wanted, self._heads, size).transpose(1, 2)
        both = self.keys_values(rows).view(batch, window, 2, self._heads, size)
        keys, values = both.permute(2, 0, 3, 1, 4)  # each (batch, head, window, size)
        scores = queries @ keys.transpose(2, 3) * size**-0.5  # (batch, head, wanted, window)
        seen = self.dropout(scores.softmax(3)) @ values
        mixed: Tensor = self.output(seen.transpose(1, 2).reshape(batch, wanted, hidden))
        return mixed
