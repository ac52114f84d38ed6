"""On a machine with an NVIDIA GPU: what is exact on a CPU is exact there, and both see the same."""

import pytest
import torch
from test_run import assert_same, weights

from gan_lightning.networks.aid import SlicedAid
from gan_lightning.sampling import load_generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
MLP = [
    "dataset=folder", "dataset.image_size=16", "dataset.batch_size=8", "network=mlp", "augment=none", "loss.gamma=0", "latent_dim=8",
    "trainer.accelerator=gpu", "trainer.deterministic=true", "observer.max_fraction=99",
]  # fmt: skip


@pytest.mark.parametrize("watched", [True, False])
def test_resuming_is_exact(train_run, photos, watched):
    """72 training images in batches of 8, dropout and all: 12 steps, and 7 and 5, agree to the bit."""
    some = [*MLP, f"dataset.root={photos}"] + ([] if watched else ["metrics=none", "diagnosis=off"])
    whole, _ = train_run("whole", *some, "total_kimg=0.096")
    again, _ = train_run("again", *some, "total_kimg=0.096")
    part, _ = train_run("part", *some, "total_kimg=0.056")
    last = part / "checkpoints/last.ckpt"
    rest, _ = train_run("rest", *some, "total_kimg=0.096", f"ckpt_path={last}")
    assert_same(weights(again), weights(whole))
    assert_same(weights(rest), weights(whole))


def test_the_same_images_as_on_a_cpu(train_run, photos):
    run, _ = train_run("run", *MLP, f"dataset.root={photos}", "total_kimg=0.096")
    there, here = (
        load_generator(run / "checkpoints/last.ckpt", device=d).images(16, 3).int()
        for d in ("cuda", "cpu")
    )
    assert (there.cpu() - here).abs().max() <= 1 and here.float().std() > 1


def test_the_aid_takes_the_same_targets(photos):
    aids = [SlicedAid(side=32, components=8).to(device) for device in ("cuda", "cpu")]
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for aid in aids:
        aid.fit([(images.to(aid.steps.device), None)])
    # the sign of a direction is open, its spread is not
    there, here = (aid.real_0.cpu().abs() for aid in aids)
    assert torch.allclose(there, here, atol=0.05) and float(here.std()) > 0.1
