"""Every configuration file composes, every experiment runs two steps, every override ever printed composes."""

from functools import reduce
from itertools import zip_longest
from pathlib import Path

import pytest
from conftest import CONF, compose

EXPERIMENTS = sorted(path.stem for path in Path(CONF, "experiment").glob("*.yaml"))
GROUPS = [
    f"{path.parent.name}={path.stem}"
    for path in sorted(Path(CONF).glob("*/*.yaml"))
    if path.parent.name not in ("experiment", "trainer")
    and path.stem != "search"  # which needs an extra: test_sweep.py
]


@pytest.mark.parametrize("choice", GROUPS)
def test_every_choice_composes(choice):
    assert compose(choice)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_runs_two_steps(name, train_run, photos, tmp_path):
    import torch

    cfg = compose(f"experiment={name}", f"dataset.root={photos}")
    size, channels = cfg.dataset.image_size or 64, cfg.dataset.image_channels
    run, _ = train_run(
        "run", f"experiment={name}", "dataset=folder", f"dataset.root={photos}", f"dataset.image_size={size}",
        f"dataset.image_channels={channels}", "dataset.batch_size=4", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
        "trainer.accelerator=cpu", "conditional=false",
        "metrics=none", "trainer.precision=32-true", "network.generator.channels=32" if "mlp" not in cfg.network.generator._target_ else "seed=1",
    )  # fmt: skip
    saved = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert saved["step"] == 2
    assert all(value.isfinite().all() for value in saved["state_dict"].values())


@pytest.mark.parametrize(
    "base",
    [
        [],
        ["network=mlp", "loss.gamma=0"],
        ["loss=wgan_gp"],
        ["loss=rpgan", "augment=ada"],
        [
            "optimizer_g._target_=torch.optim.SGD",
            "optimizer_d._target_=torch.optim.SGD",
            "augment.p=1",
        ],
        [
            "optimizer_g.lr=4e-3",
            "optimizer_d.lr=1e-4",
            "network.generator.channels=4",
            "loss=minimax",
            "n_critic=5",
        ],
        [
            "network=resnet",
            "loss=lsgan",
            "latent_dim=2",
            "schedule.warmup_kimg=1000",
            "optimizer_g.betas=[0.9,0.99]",
        ],
        ["experiment=vanilla_mnist"],
        ["experiment=vanilla_mnist", "dataset=egg", "dataset.image_size=64"],
        ["experiment=vanilla_mnist", "dataset=folder", "dataset.root=photos"],
    ],
)
def test_every_override_ever_printed_composes(base):
    """Law 6: the diagnosis's, the chosen ones' and the data check's."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from gan_lightning.diagnosis.rules import printed_overrides
    from gan_lightning.diagnosis.settings import Settings
    from gan_lightning.diagnosis.verdict import follow
    from gan_lightning.schema import validate

    def plain(*overrides):
        cfg = compose(*overrides)
        HydraConfig.instance().set_config(cfg)
        return OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])

    config = OmegaConf.to_container(plain(*base), resolve=True)
    config |= {"overrides": base}
    config["loss"]["gamma"] = config["loss"]["gamma"] or 0.0
    experiment = "few_photos" if "dataset=folder" in base else "egg"
    family = "mlp" if {"network=mlp", "experiment=vanilla_mnist"} & {*base} else "dcgan"
    network = {"family": family, "fully_connected": family == "mlp"}
    said = [  # of themselves by the parts: what all losses, sources and optimisers can say, so that all is printed
        {"loss": loss, "channels": 1, "source": {"experiment": experiment}, **optimizers}
        for loss in ({"saturating": True}, {"critic": True, "paired": True})
        for optimizers in ({}, {f"optimizer_{side}": {"adaptive": False} for side in "gd"})
    ]
    printed = {"dataset.fit=pad", "dataset.image_size=32", "dataset.image_channels=1"}
    for facts in said:
        printed |= {*printed_overrides(Settings(facts | {"config": config, "generator": network}))}
    assert len(printed) > 20
    # groups one by one; single keys do not get into each other's way: one value of each together
    alone, keys = [], {}
    for override in sorted(printed):
        key = override.partition("=")[0]
        (keys.setdefault(key, []) if "." in key else alone).append(override)
    together = [[found for found in row if found] for row in zip_longest(*keys.values())]
    for overrides in (*([override] for override in alone), *together):
        validate(plain(*reduce(follow, overrides, base)))


def test_one_rate_for_both_networks_unless_said_otherwise():
    cfg = compose("lr=0.003", "optimizer_d.lr=0.001")
    assert (cfg.optimizer_g.lr, cfg.optimizer_d.lr) == (0.003, 0.001)
    cfg = compose("experiment=vanilla_mnist")
    assert (cfg.optimizer_g.lr, cfg.optimizer_d.lr) == (0.0002, 0.0002)
