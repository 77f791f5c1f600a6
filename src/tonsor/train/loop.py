"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tonsor.errors import DivergedError, StoppedError
from tonsor.plans import Plan
from tonsor.train.calibrate import calibrate
from tonsor.train.checkpoint import checkpoints, save_checkpoint
from tonsor.train.data import Splits
from tonsor.train.ema import Ema
from tonsor.train.evaluate import Evaluation, evaluate, modes_kept
from tonsor.train.identity import identity
from tonsor.train.launch import launched, share_buffers, unchanged
from tonsor.train.log import Log
from tonsor.train.method import Method, NoMethod
from tonsor.train.optimizer import make_optimizer, set_rate
from tonsor.train.recipe import Recipe
from tonsor.train.recipe_file import write_recipe
from tonsor.train.result import Result, judged, write_result
from tonsor.train.rng import seeded
from tonsor.train.schedule import rate
from tonsor.train.setup import about_run, check, make_batches, opened
from tonsor.train.step import gradients
from tonsor.train.stop import Stop

if TYPE_CHECKING:
    from accelerate import Accelerator


def fit(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    folder: str | Path,
    resume: bool = False,
    teacher: nn.Module | None = None,
    method: Method | None = None,
    plan: Plan | None = None,
    device: str | None = None,
    save_every: int = 1000,
    log_every: int = 10,
    board: bool = True,
    quiet: bool = False,
) -> Result:
    """Train a model in place by a recipe, and judge it on the test split once, at the end.

    >>> from tempfile import mkdtemp
    >>> from tonsor.train import Recipe, fit, open_data, split
    >>> splits = split(open_data("digits"), limit=256)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> short = Recipe(epochs=10, batch=32)
    >>> result = fit(net, splits, short, folder=mkdtemp(), board=False, quiet=True)
    >>> result.final.accuracy > 0.5
    True

    Everything is written into `folder`: `run.toml` says how it was trained, a checkpoint is written
    after each epoch and each `save_every` steps, and `result.json` when all is done. With
    `resume=True` a run that was ended at any moment goes on bit for bit as if it had not been, as
    far as the device computes the same twice. `plan` is the one that made the model; with it the
    result is saved as a slim model too.

    Under `torchrun` or `accelerate launch` the batch of the recipe is shared out. Each process then
    takes the statistics of BatchNorm from its own share, and those of the first are kept; convert
    to SyncBatchNorm first where the shares are small.
    """
    folder, method = Path(folder), method or NoMethod()
    check(recipe, teacher, save_every, log_every)
    with ExitStack() as stack:
        from tonsor.train.state import Progress, State  # these import accelerate

        accelerator = stack.enter_context(launched(recipe, device))
        first, alone = accelerator.is_main_process, accelerator.num_processes == 1
        seed = recipe.seed + accelerator.process_index
        stack.enter_context(seeded(seed, accelerator.device))
        stack.enter_context(unchanged(model))

        # What the run is made of, and what there is of it already
        who = identity(model, splits, recipe, teacher, method, plan)
        notes: list[str] = []
        saved = opened(folder, resume, who, accelerator, notes)
        train, plain, validation, test = make_batches(splits, recipe, accelerator)
        if recipe.channels_last:
            model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        net, optimizer = accelerator.prepare(model, make_optimizer(model, recipe))
        method.attach(optimizer)
        if teacher is not None:
            stack.enter_context(modes_kept(teacher))
            teacher.to(accelerator.device).eval()
        ema = Ema(model, recipe.ema) if recipe.ema else None
        progress = Progress()
        state = State(accelerator, model, optimizer, ema, method, progress)
        if saved is not None:
            state.restore(saved)
            if len(saved["rng"]) != accelerator.num_processes:
                notes.append(
                    f"the run was begun by {len(saved['rng'])} processes and goes on with "
                    f"{accelerator.num_processes}: the data is the same, other chance is not"
                )
            if saved.get("threads", torch.get_num_threads()) != torch.get_num_threads():
                notes.append(
                    f"the run was begun with {saved['threads']} threads and goes on with "
                    f"{torch.get_num_threads()}: sums on the CPU may differ in their last digits"
                )
        elif first:
            write_recipe(folder / "run.toml", recipe, about_run(model, splits, accelerator))
        steps = len(train)
        log = Log(
            folder, total=steps * recipe.epochs, step=progress.step,
            speak=first, quiet=quiet, board=board,
        )  # fmt: skip
        stack.enter_context(log)
        if not len(splits.validation):
            notes.append("there is no validation split, so the last weights are taken")
        for note in notes:
            log.note(note)
        stop = stack.enter_context(Stop())

        def save() -> None:
            """Write a checkpoint, unless the weights are not worth one."""
            tree = state.snapshot()
            if not all(t.isfinite().all() for t in tree["model"].values() if isinstance(t, Tensor)):
                raise _diverged(progress.step, folder, "a weight is")
            if first:
                about = {"identity": who, "threads": torch.get_num_threads()}
                save_checkpoint(folder, progress.step, {**about, **tree})

        while progress.epoch < recipe.epochs and not progress.over:
            net.train()
            start, begun, images_seen = progress.start(steps), time.perf_counter(), 0
            pending: list[Tensor] = []
            for images, labels in train.epoch(progress.epoch, start):
                place = progress.step - progress.epoch * steps
                set_rate(optimizer, rate(recipe, progress.step, steps))
                count = train.global_size(place)
                loss = gradients(accelerator, net, model, images, labels, count, train.classes,
                                  recipe, teacher, method)  # fmt: skip
                if accelerator.scaler is not None:
                    accelerator.unscale_gradients(optimizer)
                method.before_step(progress.step)
                if recipe.clip:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                optimizer.step()
                optimizer.zero_grad()
                method.after_step(progress.step)
                if ema is not None:
                    ema.update(model)
                progress.step += 1
                images_seen += count
                pending.append(loss)

                # Losses are fetched now and then only, since each time the device is waited for.
                due = place + 1 == steps or progress.step % save_every == 0
                if due or progress.step % log_every == 0 or (alone and stop.asked):
                    _fetch(accelerator, pending, progress.step, progress.losses, folder)
                    log.steps(progress.step, progress.epoch + 1, progress.losses[-log_every:],
                              rate(recipe, progress.step - 1, steps))  # fmt: skip
                    asked = _any(accelerator, stop.asked)
                    if place + 1 < steps and (asked or progress.step % save_every == 0):
                        save()
                    if asked and place + 1 < steps:
                        raise _stopped(progress.step, folder)

            # The epoch is done: judge it, keep it if it is the best, and write it all down
            seconds = time.perf_counter() - begun
            with ema.in_place(model) if ema is not None else nullcontext():
                if recipe.recalibrate:
                    calibrate(model, plain, recipe.recalibrate)
                    if ema is not None:
                        ema.keep(model)
                share_buffers(model, accelerator)
                found = evaluate(model, validation, add_up=_adder(accelerator))
                row = _row(progress.epoch + 1, progress.step, found)
                row["train_loss"] = math.fsum(progress.losses[-steps:]) / steps
                row["rate"] = rate(recipe, progress.step - 1, steps)
                row["images_per_second"] = images_seen / seconds
                progress.history.append(row)
                better = found.accuracy > progress.chosen.get("accuracy", -1)
                if better or recipe.choose == "last" or not found.total:
                    progress.choose(model, method)
            progress.epoch += 1
            waited = progress.epoch - max(progress.history, key=_goodness)["epoch"]
            progress.over = bool(recipe.patience and waited >= recipe.patience)
            save()
            log.epoch(row)
            if _any(accelerator, stop.asked) and progress.epoch < recipe.epochs:
                raise _stopped(progress.step, folder)

        # The run is over: take the chosen weights, and look at the test split for the first time
        if progress.over:
            log.note(f"ended after epoch {progress.epoch}: no better for {recipe.patience} epochs")
        state.pour(progress.weights)
        method.load_state_dict(progress.method)
        final = evaluate(model, test, add_up=_adder(accelerator))
        best = max(progress.history, key=_goodness)
        result = Result(
            folder=folder,
            best=judged(best),
            best_epoch=best["epoch"],
            chosen_epoch=progress.chosen["epoch"],
            last=judged(progress.history[-1]),
            final=final,
            history=tuple(progress.history),
            losses=torch.tensor(progress.losses),
            notes=tuple(log.notes),
            plan=method.finish(),
        )
        if first:
            write_result(result, model, plan)
        accelerator.wait_for_everyone()  # none goes away while another still listens to it
    return result


# ---------------------------------------------------------------- smaller steps


def _fetch(
    accelerator: Accelerator, pending: list[Tensor], step: int, losses: list[float], folder: Path
) -> None:
    """Move the losses of the last steps to `losses`, the mean over the processes."""
    found: Any = accelerator.reduce(torch.stack(pending), "mean")
    for number, loss in enumerate(found.tolist(), step - len(pending) + 1):
        if not math.isfinite(loss):
            raise _diverged(number, folder, f"the loss is {loss},")
        losses.append(loss)
    pending.clear()


def _any(accelerator: Accelerator, asked: bool) -> bool:
    """Whether any process has been asked, so that all end at the same step."""
    if accelerator.num_processes == 1:
        return asked
    flag: Any = accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum")
    return bool(flag.item())


def _adder(accelerator: Accelerator) -> Any:
    return lambda tensor: accelerator.reduce(tensor, "sum")


def _row(epoch: int, step: int, found: Evaluation) -> dict[str, Any]:
    return {
        "epoch": epoch, "step": step, "correct": found.correct, "total": found.total,
        "loss": found.loss, "accuracy": found.accuracy,
    }  # fmt: skip


def _goodness(row: dict[str, Any]) -> float:
    """The accuracy; of equal ones the first is the best, and without a split the last."""
    return row["accuracy"] if row["total"] else row["epoch"]


def _diverged(step: int, folder: Path, what: str) -> DivergedError:
    last = checkpoints(folder)
    kept = f"the last good checkpoint is '{last[-1].name}' in '{folder}'" if last else "none before"
    message = (
        f"training diverged: {what} no finite number in step {step}; {kept}. "
        "A lower lr, warmup, or clip=1.0 often helps."
    )
    return DivergedError(message, step)


def _stopped(step: int, folder: Path) -> StoppedError:
    message = (
        f"stopped after step {step}, with a checkpoint in '{folder}'; "
        "go on with the same call and resume=True (--resume)"
    )
    return StoppedError(message)
