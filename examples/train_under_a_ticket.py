"""A torchvision model trained under a ticket, and its accuracy under attack."""

import sys

import torch

import winnow
from winnow.compat import torchvision

model = torchvision().models.resnet18(num_classes=2)
loader = [(torch.rand(8, 3, 32, 32), torch.arange(8) % 2) for _ in range(int(sys.argv[1]))]  # your DataLoader
handle = winnow.enforce(model, winnow.prune(model, "lamp", remaining_percent=20))
optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
for x, y in loader:
    optimizer.zero_grad(), torch.nn.functional.cross_entropy(model(x), y).backward(), optimizer.step()
handle.check()
print(f"under attack: {winnow.robust_accuracy(model, loader, eps='8/255', steps=5):.1f} %")
