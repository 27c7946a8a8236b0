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
        nn.init.normal_(self.positions, std=0.02)
        self.layers = nn.Sequential(*(_Layer(network) for _ in range(network.num_layers)))
        self.norm = nn.LayerNorm(hidden)
        self.output = nn.Linear(hidden, outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """From (batch, window, feature), or (batch, feature) for a window of one, to (batch, output)."""
        if inputs.dim() == 2:
            inputs = inputs.unsqueeze(1)
        rows = self.layers(self.embed(inputs) + self.positions)  # (batch, window, hidden)
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

    def forward(self, rows: Tensor) -> Tensor:
        rows = rows + self.dropout(self.attention(self.attention_norm(rows)))
        added: Tensor = self.dropout(self.feedforward(self.feedforward_norm(rows)))
        return rows + added


class _Attention(nn.Module):
    """Written out: of torch's fused kernels, not all have a deterministic gradient on every device."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self._heads = network.num_heads
        self.queries_keys_values = nn.Linear(network.hidden_size, 3 * network.hidden_size)
        self.dropout = nn.Dropout(network.dropout)
        self.output = nn.Linear(network.hidden_size, network.hidden_size)

    def forward(self, rows: Tensor) -> Tensor:
        batch, window, hidden = rows.shape
        parts = self.queries_keys_values(rows).view(batch, window, 3, self._heads, hidden // self._heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)  # each (batch, head, window, size)
        scores = queries @ keys.transpose(2, 3) * (hidden // self._heads) ** -0.5
        seen = self.dropout(scores.softmax(3)) @ values
        mixed: Tensor = self.output(seen.transpose(1, 2).reshape(batch, window, hidden))
        return mixed
