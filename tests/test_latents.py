"""A seed is one image's own, whoever asks for it and beside whatever else."""

import torch

from gan_lightning.latents import classes, latents, slerp


def test_a_seed_gives_its_latent_beside_any_others():
    z = latents([40, 3, 17, -1, 2**80], 8)
    for row, seed in zip(z, [40, 3, 17, -1, 2**80], strict=True):
        assert torch.equal(row, latents([seed], 8)[0])
    draw = torch.Generator().manual_seed(3)
    assert torch.equal(z[1], torch.randn(8, generator=draw))


def test_latents_of_seeds_in_turn_are_normal_and_do_not_resemble_each_other():
    n, dim = 4000, 32
    z = latents(range(n), dim)
    sigma = (n * dim) ** -0.5
    assert abs(z.mean()) < 4 * sigma and abs(z.var() - 1) < 4 * 2**0.5 * sigma
    for lag in (1, 2, 64):
        assert abs((z[lag:] * z[:-lag]).mean()) < 4 * sigma


def test_classes_in_turn_by_seed():
    assert classes([0, 1, 5, 9], 3).tolist() == [0, 1, 2, 0] and classes([1], None) is None


def test_slerp_keeps_the_length_and_meets_both_ends():
    a, b = torch.tensor([[2.0, 0, 0]]), torch.tensor([[0, 2.0, 0]])
    t = torch.tensor([0.0, 1 / 3, 1.0])[:, None, None]
    expected = torch.tensor([[2.0, 0, 0], [3**0.5, 1, 0], [0, 2, 0]])
    torch.testing.assert_close(slerp(a, b, t)[:, 0], expected)
    torch.testing.assert_close(slerp(a, a, t)[:, 0], a.expand(3, 3))  # no way to go
