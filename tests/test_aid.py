"""The aid: its distance against a plain computation, its targets, its queue, resume, and processes together."""

import copy

import pytest
import torch
import torch.nn.functional as F

from gan_lightning.errors import UserError
from gan_lightning.networks.aid import SlicedAid
from gan_lightning.networks.heads import FeatureHeads

SMALL = {
    "side": 32,
    "components": 6,
    "strides": [8, 16],
    "places": 2,
    "directions": 16,
    "queue": 24,
}


def images(n, seed=0, channels=3, side=32):
    small = torch.rand(n, channels, 4, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(small, side, mode="bilinear")


def fitted(num_classes=None, channels=3, n=60, **settings):
    aid = SlicedAid(**(SMALL | settings), num_classes=num_classes)
    labels = torch.arange(n) % num_classes if num_classes else None
    aid.fit([(images(n, channels=channels), labels)])
    return aid


def test_components_are_white_and_the_largest():
    aid = fitted()
    x = aid.vectors(images(60))[0].double()
    variances = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)[:6]
    assert aid.real_0.shape == (60, 6)
    assert torch.allclose(aid.real_0.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(torch.cov(aid.real_0.T, correction=0), torch.eye(6), atol=1e-3)
    assert torch.allclose(1 / aid.basis_0.double().norm(dim=0).square(), variances, rtol=1e-3)


def plain_distance(aid, fake, latest, i, step):
    """The same along each direction by sorting, image by image."""
    draw = torch.Generator().manual_seed(step)
    total = 0.0
    for stage in range(len(aid.stages)):
        width = getattr(aid, f"real_{stage}").shape[1]
        directions = F.normalize(torch.randn(width, aid.directions, generator=draw), dim=0)
        if stage == i:
            break
    u = (aid.vectors(fake)[i] - getattr(aid, f"mean_{i}")) @ getattr(aid, f"basis_{i}")
    everyone = torch.cat([u, latest])
    for d in range(aid.directions):
        real = sorted((getattr(aid, f"real_{i}") @ directions[:, d]).tolist())
        values = (everyone @ directions[:, d]).tolist()
        for b in range(len(u)):
            rank = sum(v < values[b] for v in values)
            target = real[int((rank + 0.5) / len(values) * len(real))]
            total += (values[b] - target) ** 2
    return total / (len(u) * aid.directions)


def test_the_distance_is_that_of_sorted_projections():
    aid, fake = fitted(), images(8, 5)
    wanted = sum(plain_distance(aid, fake, torch.zeros(0, 6), i, 0) for i in range(2)) / 2
    assert float(aid(fake)) == pytest.approx(wanted, rel=1e-4)
    assert len(aid.queue_0) == 8 and int(aid.steps) == 1
    queues, more = [aid.queue_0.clone(), aid.queue_1.clone()], images(8, 6)
    wanted = sum(plain_distance(aid, more, queues[i], i, 1) for i in range(2)) / 2
    assert float(aid(more)) == pytest.approx(wanted, rel=1e-4)
    for seed in range(3):
        aid(images(8, 7 + seed))
    assert len(aid.queue_0) == 24


def test_real_images_are_near_and_one_image_is_far():
    real, one, other = (fitted(queue=0) for _ in range(3))
    near = float(real(images(60)))
    assert near == pytest.approx(0, abs=1e-3)
    assert 0 < float(other(images(60, 1))) < 0.5 * float(one(images(1).expand(60, -1, -1, -1)))


def test_its_gradient_brings_images_nearer():
    aid = fitted(queue=0)
    fake = (0.1 * images(16, 3)).requires_grad_()
    before = aid(fake)
    before.backward()
    assert fake.grad.abs().sum() > 0
    aid.steps.zero_()  # the same directions again
    step = 0.05 * float(before.detach()) / float(fake.grad.square().sum())
    assert float(aid((fake - step * fake.grad).detach())) < float(before)


def test_classes_count():
    """The same images with exchanged labels are far, though the images alone are right."""
    labels = torch.arange(60) % 2
    shade = images(60) * 0.2 + (labels * 1.2 - 0.6)[:, None, None, None]
    aid = SlicedAid(**SMALL, num_classes=2)
    aid.fit([(shade, labels)])
    right, wrong = float(copy.deepcopy(aid)(shade, labels)), float(aid(shade, 1 - labels))
    assert right == pytest.approx(0, abs=1e-3) and wrong > 0.05


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_images(channels):
    assert float(fitted(channels=channels)(images(8, 2, channels))) > 0


def test_it_goes_on_from_its_state():
    aid = fitted()
    aid(images(8, 5))
    again = SlicedAid(**SMALL)
    assert not again.fitted
    state = aid.state_dict()
    again.shape_like(state)
    again.load_state_dict(state)
    assert again.fitted and float(again(images(8, 6))) == float(aid(images(8, 6)))
    assert not any("network" in name for name in state)


def test_the_random_stream_of_training_is_left_alone():
    before = torch.get_rng_state()
    fitted()(images(8, 5))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"weight": 0}, "weight=0"),
        ({"start": 1}, "start=1"),
        ({"side": 16}, "side=16"),
        ({"components": 0}, "components=0"),
        ({"strides": [3]}, r"strides=\[3\]"),
        ({"queue": -1}, "queue=-1"),
    ],
)
def test_impossible_settings(settings, words):
    with pytest.raises(UserError, match=words):
        SlicedAid(**settings)


def test_too_few_images():
    with pytest.raises(UserError, match="at least 8 real images"):
        SlicedAid(**SMALL).fit([(images(4), None)])


@pytest.mark.parametrize("heads", [[], ["aid=heads", "aid.heads.width=8", "aid.heads.start=0.2"]])
def test_a_run_with_the_aid_goes_on_to_the_bit(train_run, photos, heads):
    common = (
        "dataset=folder", f"dataset.root={photos}", "dataset.image_size=32", "dataset.batch_size=8", "network=mlp",
        "network.generator.hidden=[16]", "network.discriminator.hidden=[16]", "latent_dim=4", "aid=sliced", "aid.side=32",
        "aid.components=8", "aid.queue=24", "observer.every_kimg=1", "checkpoints.every_kimg=1", "metrics=none", "diagnosis=off",
        "trainer.enable_progress_bar=false", *heads,
    )  # fmt: skip
    whole, _ = train_run("whole", *common, "total_kimg=0.032")
    first, _ = train_run("first", *common, "total_kimg=0.016")
    rest, _ = train_run(
        "rest", *common, "total_kimg=0.032", f"ckpt_path={first}/checkpoints/last.ckpt"
    )
    a, b = (torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (whole, rest))
    turns = 1 if heads else 0  # steps 2 of 0 to 3 (from a fifth of the run on)
    assert int(a["state_dict"]["aid.steps"]) == 4 - turns
    assert len(a["optimizer_states"]) == 2 + bool(heads)
    if heads:
        assert int(a["state_dict"]["aid.heads.steps"]) == turns
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())


# -- heads -----------------------------------------------------------------------------------------


def test_heads_tell_maps_apart_and_the_generator_follows_them():
    torch.manual_seed(0)
    heads = FeatureHeads(side=32, width=8, p=0.0, gamma=0.1)
    aid = SlicedAid(**SMALL, heads=heads)
    optimizer = torch.optim.Adam(heads.parameters(), 1e-2)
    real, fake = aid.maps(images(16)), aid.maps(-images(16, seed=1))
    losses = []
    for _ in range(30):
        total, loss = heads.d(real, fake)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(loss))
    assert 1 < losses[0] < 3 and losses[-1] < 0.5 * losses[0]
    assert int(heads.steps) == 30
    optimizer.zero_grad()
    pixels = (-images(16, seed=1)).requires_grad_()
    before = heads.g(aid.maps(pixels))
    before.backward()
    assert all(weight.grad is None for weight in heads.parameters())
    with torch.no_grad():
        step = pixels - 2.0 * pixels.grad / pixels.grad.norm()
    assert float(heads.g(aid.maps(step))) < float(before)


def test_r1_on_the_maps_comes_every_second_step_with_its_gain():
    """A penalty of (2 steps) · gamma/2 · Σ ‖∇ mean logit‖² over the maps, against finite differences of its parts."""
    torch.manual_seed(0)
    heads = FeatureHeads(side=32, width=8, p=0.0, gamma=0.5, penalty_every=2)
    aid = SlicedAid(**SMALL, heads=heads)
    real, fake = aid.maps(images(6)), aid.maps(images(6, seed=1))
    total, loss = heads.d(real, fake)
    leaves = [x.clone().requires_grad_() for x in real]
    gradients = torch.autograd.grad(heads(leaves).mean(1).sum(), leaves)
    wanted = sum(float(g.square().sum()) for g in gradients) / 6
    # spectral norm's power iteration goes on with every pass: nearly, not exactly, the same weights
    assert float(total.detach() - loss) == pytest.approx(2 * 0.25 * wanted, rel=0.2)
    total, loss = heads.d(real, fake)
    assert float(total.detach()) == float(loss)
