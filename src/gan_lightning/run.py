"""One training run: from a composed configuration to the printed result."""

import inspect
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf

from gan_lightning import boards, folder, interrupt, terminal, together
from gan_lightning.callbacks import Checkpoints, ConsoleLine, Deadline, RandomState, Stop
from gan_lightning.config import assign, let_last_rate_win
from gan_lightning.data.loader import ImageData
from gan_lightning.diagnosis.verdict import again
from gan_lightning.errors import UserError
from gan_lightning.files import expanded, write_json
from gan_lightning.gan import GAN
from gan_lightning.keeping import Guard
from gan_lightning.networks.aid import LEAST
from gan_lightning.recipe import choose
from gan_lightning.report.live import LivePage, recorded
from gan_lightning.resume import CheckpointFiles, must_fit, must_load, read_training_state
from gan_lightning.retry import retry
from gan_lightning.strategy import Together, environment, must_requeue, requeue


@rank_zero_only
def say(text: str = "") -> None:
    print(text, flush=True)


def train(cfg: DictConfig) -> float | None:
    """Trains as configured; the objective for sweepers (lower is better), None without a score."""
    quieten()
    started = time.monotonic()
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    overrides = list(HydraConfig.get().overrides.task)
    on_gpu = choose_device(cfg)
    place = together.take_place(cfg, overrides, on_gpu)
    rank_zero_only.rank = place.rank  # type: ignore[attr-defined]
    if cfg.retry.minutes:
        return train_until_good(cfg, overrides, run_dir, place)
    if gone := let_last_rate_win(cfg, overrides):
        say(f"lr={cfg.lr:g} was typed last and takes the place of {' and '.join(gone)}")
    before = earlier_state(cfg, run_dir)
    seed_everything(cfg.seed, workers=True, verbose=False)
    os.environ["PYTHONHASHSEED"] = str(cfg.seed)  # for the processes this one starts
    company = together.gather(place)
    if company:
        company.tell(run_dir)
    with company.first() if company else nullcontext():
        data = prepare_data(cfg, run_dir, on_gpu)
    module = prepare_module(cfg, overrides, data, before, on_gpu)
    part = folder.claim(run_dir, before, cfg.ckpt_path)
    folder.write_config(run_dir, OmegaConf.to_yaml(OmegaConf.create(module.config)))
    left = cfg.retry.seconds_left
    if left:  # of the whole process: what it took to get here is gone, and the scores at the end need some as well
        left = max(1.0, 0.9 * (left - (time.monotonic() - started)))
    files = CheckpointFiles(lambda path: before) if before else CheckpointFiles()
    trainer = build_trainer(cfg, run_dir, left, files, place)
    for board in boards.boards(trainer):
        board.go_on(part)
        board.show_settings(boards.settings(module.config, HydraConfig.get().runtime.choices))
    say(terminal.images(data))
    say(f"device:  {terminal.device(trainer, module, cfg.console.reasons)}")
    device = terminal.device(trainer, module, reasons=True)
    recording = recorded(module, run_dir, overrides, device, part is not None)
    with recording if trainer.is_global_zero else nullcontext():
        fit(trainer, module, data, cfg.ckpt_path, company)
    if must_requeue():
        say(requeue() if place.rank == 0 else "")
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    objective = next((c.objective() for c in callbacks if hasattr(c, "objective")), None)
    if trainer.is_global_zero:
        write_json(run_dir / "result.json", {"objective": objective, "nimg": module.nimg})
        spent = time.monotonic() - started
        say("\n".join(terminal.farewell(run_dir, module, before.get("nimg", 0), spent)))
    if interrupt.asked():
        stopped(run_dir, module)
    return objective


def choose_device(cfg: DictConfig) -> bool:
    """Whether it trains on a GPU, which accelerator=auto becomes. Raises UserError."""
    accelerator, there = cfg.trainer.accelerator, torch.cuda.is_available()
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and there)
    if on_gpu and not there:
        raise UserError(
            f"trainer.accelerator={accelerator}: torch sees no GPU here; cpu or auto is right"
        )
    if accelerator == "auto":  # not an Apple GPU, whose numbers have no float64
        cfg.trainer.accelerator = "gpu" if on_gpu else "cpu"
    return on_gpu


def train_until_good(
    cfg: DictConfig, overrides: list[str], run_dir: Path, place: together.Place
) -> float | None:
    """retry.minutes: runs that follow the diagnosis, each a process of its own; the best
    objective."""
    if place.kind != "alone":
        raise UserError(
            "retry.minutes starts its runs itself: start it as one process, with trainer.devices for several"
        )
    if "_target_" not in cfg.diagnosis:
        raise UserError("retry.minutes follows the diagnosis: leave diagnosis=off out")
    objective = retry(overrides, run_dir, cfg.retry.minutes)
    write_json(run_dir / "result.json", {"objective": objective})  # what a sweep reads
    if interrupt.asked():
        sys.exit(interrupt.exit_code())
    return objective


def earlier_state(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    """What the run goes on from, {} for a new one; sets ckpt_path where SLURM has requeued it."""
    last = run_dir / "checkpoints" / "last.ckpt"
    if cfg.ckpt_path:
        cfg.ckpt_path = str(expanded(cfg.ckpt_path))  # for Lightning, which reads it again
    elif together.restarted(os.environ) and last.is_file():
        cfg.ckpt_path = str(last)
        say(f"SLURM has started this job again: it goes on from {last}")
    return read_training_state(cfg.ckpt_path) if cfg.ckpt_path else {}


def prepare_module(
    cfg: DictConfig, overrides: list[str], data: ImageData, before: dict[str, Any], on_gpu: bool
) -> GAN:
    """The module for these data, which `before` fits; `config` is the whole one. UserError."""
    if cfg.conditional:
        if not data.num_classes:
            raise UserError(
                "conditional=true needs class labels: dataset=mnist has them, or dataset.labels=true with a folder per class"
            )
        cfg.num_classes = data.num_classes
    cfg.dataset.batch_size = data.batch_size  # may have shrunk to a small set
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    config = {str(key): value for key, value in plain.items()} | {"overrides": overrides}
    if before:
        must_fit(before, config, cfg.ckpt_path)
    module = build_module(cfg, config, on_gpu)
    if before:
        must_load(before, module, cfg.ckpt_path)
    return module


def fit(
    trainer: Trainer,
    module: GAN,
    data: ImageData,
    ckpt_path: str | None,
    company: together.Company | None,
) -> None:
    """Lightning's fit; what ends it early is said in one line where that can be."""
    try:
        with interruptible(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    except torch.OutOfMemoryError:
        smaller = f"dataset.batch_size={max(1, data.batch_size // 2)}"
        raise UserError(f"the GPU's memory is too small for this: try {smaller}") from None
    except MisconfigurationException as error:
        # a key of the Trainer's that manual optimisation does not go with
        raise UserError(f"trainer: {' '.join(str(error).split())}") from None
    except Exception as error:
        if company is None or isinstance(error, UserError) or not (why := company.blame(error)):
            raise
        found = (Path(trainer.default_root_dir) / "checkpoints").glob("*.ckpt")
        kept = sorted(found, key=lambda path: path.stat().st_mtime)
        more = f"; go on with {assign('ckpt_path', kept[-1])}" if kept else ""
        raise UserError(why + more) from None


def prepare_data(cfg: DictConfig, run_dir: Path, on_gpu: bool) -> ImageData:
    """The data, decoded, after filling in what the configuration leaves open."""
    source = instantiate(cfg.dataset.source)
    if len(source) < LEAST:
        few = "too few to learn from: 50 or more of one kind of thing are right"
        raise UserError(f"{source.name}: {len(source)} images are {few}")
    batch_is_chosen = cfg.dataset.batch_size is None
    chosen = choose(cfg, source, on_gpu)
    if cfg.console.reasons:
        for override, reason in chosen:
            say(f"chosen: {override}  ({reason})")
    elif line := terminal.recipe(chosen):
        say(line)
    data: ImageData = instantiate(
        cfg.dataset, source=source, shrink_batch=batch_is_chosen or cfg.dataset.shrink_batch
    )
    data.report_dir = run_dir / "data_check"
    data.prepare()
    return data


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Training, with signals as interrupt.py has them; of a full disk only the first error
    counts."""
    # Lightning's own handlers would speak to other processes in the middle of a step
    trainer._signal_connector.register_signal_handlers = interrupt.take  # type: ignore[method-assign]
    if trainer.strategy.launcher is not None:  # whose processes begin before any callback is called
        interrupt.children[:] = [trainer.strategy.launcher.kill]
    try:
        yield
    except SystemExit:  # Lightning's way to end after a KeyboardInterrupt
        if not interrupt.asked():
            raise
    except OSError as error:
        # while a run ends it writes more files, and on a full disk each of them fails
        first: BaseException | None = error
        while first is not None:
            error = first if isinstance(first, OSError) else error
            first = first.__context__
        raise error from None
    except RuntimeError as error:  # the other process was asked as well, and has gone
        if not interrupt.asked() or trainer.world_size == 1:
            raise
        say(f"while stopping: {' '.join(str(error).split())[:120]}")
    finally:
        interrupt.over()
        interrupt.take()


def stopped(run_dir: Path, module: GAN) -> NoReturn:
    """Says what a run that was asked to stop leaves, and ends with the exit code of the signal."""
    last = run_dir / "checkpoints" / "last.ckpt"
    ending = f"\nstopped by {interrupt.name(interrupt.asked())} after {module.nimg:,} images"
    more = assign("ckpt_path", last), assign("hydra.run.dir", run_dir)
    command = again(module.config["overrides"], *more)
    say(ending + (f"; to go on:\n  {command}" if last.is_file() else ""))
    sys.exit(interrupt.exit_code())


def build_module(cfg: DictConfig, config: dict[str, Any], on_gpu: bool = False) -> GAN:
    """The module of a composed configuration; `config` is what its checkpoints will hold."""
    generator, discriminator = map(instantiate, (cfg.network.generator, cfg.network.discriminator))
    convolutions = any(isinstance(part, torch.nn.Conv2d) for part in generator.modules())
    bf16 = "bf16" in str(cfg.trainer.precision)
    aid = instantiate(cfg.aid) if "_target_" in cfg.aid else None
    if aid is not None and bf16:
        aid.network.to(torch.bfloat16)
    return GAN(
        generator,
        discriminator,
        instantiate(cfg.loss),
        make_optimizer(cfg.optimizer_g),
        make_optimizer(cfg.optimizer_d),
        augment=instantiate(cfg.augment),
        aid=aid,
        ema=instantiate(cfg.ema),
        schedule=instantiate(cfg.schedule),
        latent_dim=cfg.latent_dim,
        n_critic=cfg.n_critic,
        reuse_fakes=cfg.reuse_fakes,
        num_classes=cfg.num_classes,
        grad_clip=cfg.grad_clip,
        total_kimg=cfg.total_kimg,
        # a CPU's bf16 convolutions bring their own order of memory: channels last costs them a tenth (SPEED.md)
        channels_last=convolutions and (on_gpu or not bf16),
        compile=cfg.compile,
        config=config,
    )


def make_optimizer(cfg: DictConfig) -> Any:
    """The configured optimiser, fused where it can be, without arguments it does not know."""
    made = instantiate(cfg)
    known = inspect.signature(made.func).parameters
    arguments = {
        key: value for key, value in made.keywords.items() if key in known or key != "betas"
    }
    if wrong := [key for key in arguments if key not in known]:
        raise UserError(
            f"{cfg._target_} knows no {', '.join(wrong)}; it takes {', '.join(list(known)[1:])}"
        )
    if "fused" in known and not arguments.get("foreach"):
        arguments.setdefault("fused", True)
    return partial(made.func, **arguments)


def build_trainer(
    cfg: DictConfig,
    run_dir: Path,
    seconds: float | None = None,
    files: CheckpointFiles | None = None,
    place: together.Place | None = None,
) -> Trainer:
    """Lightning's Trainer with this project's callbacks; training ends within `seconds`."""
    place = place or together.Place()
    deterministic = bool(cfg.trainer.deterministic)
    torch.use_deterministic_algorithms(deterministic)  # Lightning never takes it back
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = bool(cfg.trainer.benchmark)
    max_time = OmegaConf.to_object(cfg.trainer).get("max_time")  # type: ignore[union-attr]
    deadlines = [Deadline(limit) for limit in (max_time, seconds and {"seconds": seconds}) if limit]
    checkpoints = Checkpoints(run_dir / "checkpoints", cfg.checkpoints.every_kimg)
    observer = instantiate(cfg.observer, _convert_="all")
    callbacks: list[Callback] = [
        Guard(checkpoints),
        ConsoleLine(cfg.console.every_steps, cfg.trainer.enable_progress_bar),
        observer,
        LivePage(observer),
        Stop(),
        *sorted(deadlines, key=lambda deadline: deadline.time_remaining() or 0)[:1],
        checkpoints,
        RandomState(cfg.seed),
    ]
    settings = dict(cfg.trainer) | {
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "max_time": None,
    }
    if settings["strategy"] == "auto" and place.world != 1:
        settings["strategy"] = Together()
    return instantiate(
        settings,
        default_root_dir=str(run_dir),
        logger=[instantiate(logger) for logger in cfg.logger.values()],
        callbacks=callbacks,
        plugins=[files or CheckpointFiles(), *environment(place)],
        use_distributed_sampler=False,
    )


def quieten() -> None:
    """Lightning under Hydra would print everything twice, with tips and notes on what is done on
    purpose."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*isinstance.treespec.*",
        ".*Checkpoint directory.*",
        ".*Experiment logs directory.*",
        r".*module\(s\) in eval mode.*",  # the EMA is
        ".*smaller than the logging interval.*",  # values are logged by images shown
    ):
        warnings.filterwarnings("ignore", text)
