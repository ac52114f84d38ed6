"""What is chosen for a folder, and that what the user sets wins."""

import pytest
from conftest import Photos, compose

from gan_lightning.recipe import choose, gamma


def chosen(source, *overrides, on_gpu=False):
    cfg = compose("dataset=folder", "dataset.root=x", *overrides)
    return cfg, dict(line[0].split("=") for line in choose(cfg, source, on_gpu))


@pytest.mark.parametrize(
    ("count", "size", "on_gpu", "image_size"),
    [
        (500, (256, 256), False, 64),
        (500, (256, 300), True, 128),
        (500, (100, 40), False, 32),
        (500, (20, 20), False, 32),
    ],
)
def test_image_size_follows_the_images_and_the_device(count, size, on_gpu, image_size):
    assert chosen(Photos(count, size), on_gpu=on_gpu)[0].dataset.image_size == image_size


@pytest.mark.parametrize(("count", "p"), [(100, 0.5), (4999, 0.5), (5000, 0.2), (20000, 0.0)])
def test_augmentation_follows_the_number_of_images(count, p):
    assert chosen(Photos(count))[0].augment.p == p


@pytest.mark.parametrize(
    ("side", "channels", "least", "depth"), [(28, 128, 32, 1), (32, 128, 32, 1), (48, 256, 16, 2)]
)
def test_the_networks_follow_the_size(side, channels, least, depth):
    network = chosen(Photos(500), f"dataset.image_size={side}")[0].network
    for part in (network.generator, network.discriminator):
        assert (part.channels, part.min_channels) == (channels, least)
    assert (network.generator.depth, network.discriminator.depth) == (depth, 1)


def test_a_tiny_folder_gets_a_tiny_batch():
    assert chosen(Photos(10))[0].dataset.batch_size == 2


def test_what_the_user_sets_wins_and_is_not_mentioned():
    cfg, lines = chosen(
        Photos(500),
        "dataset.image_size=[48,80]",
        "dataset.batch_size=7",
        "augment.p=0.2",
        "loss.gamma=3",
        "total_kimg=5",
    )
    assert list(cfg.dataset.image_size) == [48, 80] and (
        cfg.dataset.batch_size,
        cfg.augment.p,
        cfg.loss.gamma,
        cfg.total_kimg,
    ) == (7, 0.2, 3, 5)
    assert {key for key in lines if not key.startswith("network.")} == {
        "trainer.precision",
        "checkpoints.every_kimg",
    }


def test_every_chosen_line_composes_again():
    _, lines = chosen(Photos(500))
    again = compose(
        "dataset=folder", "dataset.root=x", *(f"{key}={value}" for key, value in lines.items())
    )
    assert not choose(again, Photos(500), False)


@pytest.mark.parametrize("limit", ["trainer.max_epochs=3", "trainer.max_time=00:00:05:00"])
def test_a_length_of_the_users_needs_no_other(limit):
    assert chosen(Photos(500), limit)[0].total_kimg is None


def test_gamma_grows_with_pixels_and_falls_with_the_batch():
    assert (
        gamma(64**2, 16)
        == pytest.approx(4 * gamma(32**2, 16))
        == pytest.approx(8 * gamma(32**2, 32))
    )


@pytest.mark.parametrize("limit", ["trainer.max_epochs=3", "trainer.max_time=00:00:05:00"])
def test_a_schedule_follows_whatever_ends_the_run(limit):
    cfg, _ = chosen(Photos(500), "schedule.lr_final=0.1", limit)
    assert cfg.total_kimg is None and cfg.schedule.lr_final == 0.1
