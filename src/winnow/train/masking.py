"""Training under a fixed mask: removed weights are zero and never move, whatever the optimiser."""

from __future__ import annotations

from torch import Tensor, nn

from winnow.ticket import Ticket


def enforce(model: nn.Module, ticket: Ticket | None) -> None:
    """Zero the removed weights of `model` and keep their gradients at zero from now on (None: nothing is masked).

    A zero weight with a zero gradient gets no momentum, no decay and no Adam step, so it stays exactly zero, and the kept
    weights move as under torch.nn.utils.prune. Raises WinnowError when the ticket does not fit.
    """
    if ticket is None:
        return
    masks = ticket.apply(model)
    parameters = dict(model.named_parameters())
    for name, mask in masks.items():
        parameter = parameters[name]
        _keep_gradient_masked(parameter, mask.to(dtype=parameter.dtype))


def _keep_gradient_masked(parameter: Tensor, mask: Tensor) -> None:
    laid_out = mask.reshape(parameter.shape).contiguous(memory_format=_memory_format(parameter))
    parameter.register_hook(lambda gradient: gradient * laid_out)


def _memory_format(parameter: Tensor):  # type: ignore[no-untyped-def]
    import torch

    if parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
