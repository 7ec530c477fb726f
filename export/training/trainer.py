"""Training by the clock: a loop that computes for some minutes, survives being stopped, and ends with a low rate.

Under torchrun every process trains on its own batches and gradients are averaged: on a busy machine two processes of
one thread are faster than one of two.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

_WARMUP, _PLATEAU = 0.06, 0.4  # fractions of the time
_SAVE_EVERY = 60.0  # seconds
_PRINT_EVERY = 20.0  # seconds
_ORTHOGONAL = 2  # dimensions of a weight that Muon steps; all others are AdamW's


class Trainer:
    """Iterate to train: every pass is one step, and `step(loss)` must be called in it.

    The learning rate rises for 6 % of `minutes`, holds, and falls along a cosine. `modules` are saved to
    `path` every minute and read back from it, with the optimizers and the time already spent. Modules named in `shares`
    learn at that share of the rate.
    """

    def __init__(
        self,
        path: Path,
        modules: dict[str, nn.Module],
        minutes: float,
        rate: float = 2e-3,
        *,
        muon: bool = True,
        shares: Mapping[str, float] | None = None,
    ) -> None:
        self.path = path
        self.modules = modules
        self.budget = minutes * 60
        weights = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        matrices = [p for p in weights if muon and p.ndim == _ORTHOGONAL and min(p.shape) > 1]
        chosen = {id(p) for p in matrices}
        groups: dict[float, list[nn.Parameter]] = {}
        for name, module in modules.items():
            others = [p for p in module.parameters() if p.requires_grad and id(p) not in chosen]
            groups.setdefault((shares or {}).get(name, 1.0), []).extend(others)
        self.weights = weights
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                [{"params": found, "share": share} for share, found in groups.items()],
                lr=rate,
                betas=(0.9, 0.98),
                weight_decay=0.01,
            )
        ]
        if matrices:
            muon_step = torch.optim.Muon(matrices, lr=rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            self.optimizers.insert(0, muon_step)
        self.rate = rate
        self.steps = 0
        self.spent = 0.0
        self._losses: list[float] = []
        if path.exists():
            self._load()

    def __iter__(self) -> Iterator[int]:
        printed = saved = time.monotonic()
        clock = _computed()
        while self.spent < self.budget:
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = self.rate * group.get("share", 1.0) * self._warmth(self.spent / self.budget)
            yield self.steps
            now = time.monotonic()
            computed = _computed()
            self.spent = self.spent + computed - clock
            clock = computed
            self.steps += 1
            if now - printed > _PRINT_EVERY:
                printed = now
                self._report()
            if now - saved > _SAVE_EVERY:
                saved = now
                self.save()
        self._report()
        self.save()

    def step(self, loss: Tensor) -> None:
        """One optimizer step down `loss`."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        self._share()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self._losses.append(float(loss.detach()))

    def _share(self) -> None:
        """Average gradients, and the clock, over the processes of torchrun; nothing to do for one."""
        if not distributed.is_initialized():
            return
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [torch.tensor([self.spent])])
        distributed.all_reduce(flat)
        flat /= distributed.get_world_size()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients] + [1]), strict=False):
            gradient.copy_(mean.view_as(gradient))
        self.spent = float(flat[-1])

    def save(self) -> None:
        """Replace the checkpoint whole."""
        if not is_first_process():
            return
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        progress = {"steps": self.steps, "spent": self.spent}
        state |= {"optimizers": [o.state_dict() for o in self.optimizers], "progress": progress}
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, self.path)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True)
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps = state["progress"]["steps"]
        self.spent = state["progress"]["spent"]

    def _warmth(self, done: float) -> float:
        if done < _PLATEAU:
            return min(done / _WARMUP, 1.0)
        return 0.5 + 0.5 * math.cos(math.pi * min(1.0, (done - _PLATEAU) / (1 - _PLATEAU))) + 0.002

    def _report(self) -> None:
        if not is_first_process():
            return
        mean = sum(self._losses) / max(len(self._losses), 1)
        print(f"{self.path.stem}: step {self.steps}, {self.spent:.0f} s, loss {mean:.4f}", flush=True)
        self._losses.clear()


def _computed() -> float:
    """Seconds of computation: as on a machine that does nothing else, however busy this one is."""
    return time.process_time() / torch.get_num_threads()


def is_first_process() -> bool:
    """Of those that torchrun started, or the only one: the one that writes and prints."""
    return not distributed.is_initialized() or distributed.get_rank() == 0
