"""Augmentation must not show in the samples: no cutout squares, no frames of a shift."""

import torch
import torch.nn.functional as F

from gan_lightning.augment import Augment
from gan_lightning.ema import EMA
from gan_lightning.networks.dcgan import Discriminator, Generator


def test_cutout_and_translation_do_not_leak():
    """Images are one bright tone of 0.5 to 0.9; a cut-out or shifted-in pixel is 0 and stands out. p = 0.8, the cap."""
    torch.manual_seed(0)
    generator, discriminator = Generator(8, 16, 1, 32, 16), Discriminator(16, 1, 32, 16)
    ema = EMA(halflife_kimg=0.2, rampup=0)
    average = ema.copy_of(generator)
    augment = Augment(["translation", "cutout"], p=0.8)
    g = torch.optim.Adam(generator.parameters(), 2e-3, (0.0, 0.99))
    d = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.0, 0.99))
    for _ in range(250):
        real = (torch.rand(32, 1, 1, 1) * 0.4 + 0.5).expand(-1, 1, 16, 16)
        fake = generator(torch.randn(32, 8))
        loss = (
            F.softplus(-discriminator(augment(real))).mean()
            + F.softplus(discriminator(augment(fake.detach()))).mean()
        )
        d.zero_grad()
        loss.backward()
        d.step()
        g.zero_grad()
        F.softplus(-discriminator(augment(fake))).mean().backward()
        g.step()
        ema.update(average, generator, 32, 0)
    with torch.no_grad():
        images = average(torch.randn(500, 8))
    fraction = (images < 0.3).float().mean()
    augmented = (augment(torch.full((500, 1, 16, 16), 0.7)) < 0.3).float().mean()
    assert augmented > 0.1  # what a leak would look like
    assert fraction < 0.02
    edge = torch.cat(
        [images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]]
    ).mean()
    assert abs(float(edge - images[:, :, 4:12, 4:12].mean())) < 0.1
