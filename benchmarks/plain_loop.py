"""The baseline of the executor: the loop that one writes by hand in PyTorch, on the same tensors."""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def plain_mlp(inputs: int, hidden: tuple[int, ...]) -> nn.Module:
    """Return Linear, ReLU and Dropout for each hidden layer, then Linear to three classes."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.ReLU(), nn.Dropout(0.2)]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, 3))


def train_plainly(
    make: Callable[[], nn.Module],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    validation_inputs: torch.Tensor,
    validation_targets: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    gamma: float,
) -> None:
    """Train with Adam, focal loss and gradient clipping; validate after each epoch."""
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4)
    weights = len(targets) / (3 * torch.bincount(targets, minlength=3).float())
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=True)

    def focal(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        log_p = outputs.log_softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
        return (-weights[labels] * (1 - log_p.exp()) ** gamma * log_p).mean()

    for _ in range(epochs):
        model.train()
        total = 0.0
        for batch_inputs, batch_targets in loader:
            optimizer.zero_grad()
            loss = focal(model(batch_inputs), batch_targets)
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            focal(model(validation_inputs), validation_targets).item()
