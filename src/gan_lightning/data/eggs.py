"""Rendered eggs: shaded surfaces of revolution on plain, graded, cloth and wood grounds."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# sRGB 0..255, from real hens', ducks' and quails' eggs
SHELLS = [
    *((244, 240, 232), (240, 226, 204), (226, 188, 150), (196, 138, 96), (158, 100, 66)),
    *((178, 203, 194), (150, 180, 172), (196, 208, 214), (232, 206, 190), (208, 196, 160)),
]
GROUNDS = [
    *((236, 234, 230), (205, 208, 212), (120, 126, 132), (58, 60, 66), (96, 128, 150)),
    *((122, 140, 106), (188, 150, 128), (214, 196, 170), (148, 112, 92), (164, 146, 176)),
]
WOODS = [(150, 104, 66), (186, 142, 98), (112, 76, 52), (206, 172, 132)]
SPECKLES = [(96, 62, 40), (70, 52, 44), (132, 88, 58)]


def _linear(colour: Sequence[int] | np.ndarray) -> np.ndarray:
    return (np.asarray(colour, np.float32) / 255) ** 2.2


def _waves(
    rng: np.random.Generator, x: np.ndarray, y: np.ndarray, low: float, high: float, count: int
) -> np.ndarray:
    """A random field: plane waves of `low` to `high` periods over the image."""
    angle, phase = rng.uniform(0, 2 * np.pi, (2, count)).astype(np.float32)
    rate = np.pi * np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(np.float32)
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for k in range(count):
        total += np.cos(rate[k] * (np.cos(angle[k]) * x + np.sin(angle[k]) * y) + phase[k])
    return total * np.float32((2 / count) ** 0.5)


def _ground(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A background in linear light, (H, W, 3)."""
    kind = rng.choice(4, p=[0.3, 0.3, 0.2, 0.2])  # plain, graded, cloth, wood
    colour = _linear(rng.permutation(WOODS if kind == 3 else GROUNDS)[0]) * np.float32(
        rng.uniform(0.8, 1.15)
    )
    tone = np.ones(np.broadcast_shapes(x.shape, y.shape), np.float32)
    if kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        tone += np.float32(rng.uniform(0.2, 0.45)) * (np.cos(angle) * x + np.sin(angle) * y)
    elif kind == 2:  # woven threads over slow folds
        turn, rate = rng.uniform(0, np.pi), rng.uniform(60, 90)
        across, along = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        tone += 0.05 * np.sin(rate * across) * np.sin(rate * along) + 0.09 * _waves(
            rng, x, y, 0.6, 2, 5
        )
    elif kind == 3:  # year rings cut lengthwise, and fine grain
        turn = rng.uniform(-0.35, 0.35) + rng.choice([0, np.pi / 2])
        across, along = np.cos(turn) * y - np.sin(turn) * x, np.cos(turn) * x + np.sin(turn) * y
        bend = across + 0.05 * _waves(rng, across, 0.35 * along, 0.5, 1.5, 4)
        rings = np.sin(rng.uniform(12, 22) * bend + 1.2 * np.sin(5 * bend + 1))
        tone += 0.13 * rings + 0.05 * _waves(rng, across * 12, along * 0.5, 0.7, 2, 6)
    tone -= np.float32(rng.uniform(0.02, 0.12)) * (x * x + y * y)
    return colour * tone.clip(0.1)[..., None]


def _speckles(rng: np.random.Generator, along: np.ndarray, around: np.ndarray) -> np.ndarray:
    """How much of the speckle colour each point of the shell has, 0..1."""
    amount = np.zeros(along.shape, np.float32)
    count = int(rng.uniform(40, 160))
    places = rng.uniform((-1, -1.6), (1, 1.6), (count, 2)).astype(np.float32)
    radii = np.exp(rng.normal(np.log(0.028), 0.5, count)).clip(0.012, 0.11).astype(np.float32)
    strength = rng.uniform(0.3, 0.9, count).astype(np.float32)
    for (u, phi), radius, strong in zip(places, radii, strength, strict=True):
        rows = np.flatnonzero(
            (np.abs(along - u) < 2 * radius) & (np.abs(around - phi) < 3 * radius)
        )
        ring = np.sqrt((along[rows] - u) ** 2 + ((around[rows] - phi) * 0.75) ** 2) / radius
        amount[rows] = np.maximum(amount[rows], strong * (1.5 - ring).clip(0, 1))
    return amount


class _Egg:
    """A surface of revolution: r(u)^2 = b^2 (1 - u^2) e^(k u), u = -1..1, pointed end first.

    x and y are -1..1 over the image.
    """

    def __init__(self, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> None:
        self.x, self.y = x, y
        self.a, self.k = rng.uniform(0.58, 0.8), rng.uniform(0.25, 0.55)
        self.b = self.a * rng.uniform(0.7, 0.79)
        self.cx, self.cy = rng.uniform(-0.1, 0.1, 2)
        tilt = rng.uniform(0, 2 * np.pi)
        self.cos, self.sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))

    def turned(self, x: Any, y: Any) -> tuple[Any, Any]:
        """(x, y) along the egg and across it."""
        return self.cos * x + self.sin * y, self.cos * y - self.sin * x

    def outline(self, dx: float = 0, dy: float = 0) -> tuple[np.ndarray, ...]:
        """Moved by (dx, dy): u, v, r^2, d(r^2)/dx, distance to the outline, each (H, W)."""
        along, v = self.turned(self.x - np.float32(self.cx + dx), self.y - np.float32(self.cy + dy))
        u = (along / self.a).clip(-3, 3)
        grow = self.b * self.b * np.exp(self.k * u)
        r2, slope = grow * (1 - u * u), grow * (self.k * (1 - u * u) - 2 * u) / self.a
        far = (r2 - v * v) / np.sqrt(slope * slope + 4 * v * v + 1e-6)
        return u, v, r2, slope, far


class _Light:
    """A lamp somewhere above, of a warm or cold white, and light from all around."""

    def __init__(self, rng: np.random.Generator) -> None:
        azimuth, self.height = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 1.05)
        self.xy = np.array([np.cos(azimuth), np.sin(azimuth)], np.float32)
        self.xy *= np.float32(np.cos(self.height))
        red, blue = 1 + rng.uniform(-0.02, 0.07), 1 + rng.uniform(-0.09, 0.04)
        self.warm = np.array([red, 1, blue], np.float32)
        self.power, self.ambient = rng.uniform(0.78, 0.98), rng.uniform(0.16, 0.32)


def _shadow(rng: np.random.Generator, egg: _Egg, light: _Light) -> np.ndarray:
    """How dark the ground is, (H, W), by the egg's shadow and where it lies."""
    reach = rng.uniform(0.1, 0.24)
    away = -light.xy / (np.hypot(*light.xy) + 1e-6)
    soft = rng.uniform(0.05, 0.13)
    cast = 1 / (1 + np.exp(-egg.outline(*(away * reach))[4].clip(-1, 1) / soft))
    touch = np.exp(-np.abs(egg.outline(*(away * 0.05))[4].clip(-1, 0)) / 0.05)
    return 1 - (1 - rng.uniform(0.45, 0.7) * cast) * (1 - 0.5 * touch)


def _surface(
    rng: np.random.Generator,
    egg: _Egg,
    light: _Light,
    ground: np.ndarray,
    points: tuple[np.ndarray, ...],
) -> np.ndarray:
    """The shell at `points` (u, v, r^2, slope), each (P,), in linear light, (P, 3)."""
    u, v, r2, slope = points
    w = np.sqrt((r2 - v * v).clip(0))
    normal = np.stack([-slope / 2, v, w])  # along the egg, across it, towards the viewer
    normal /= np.sqrt((normal**2).sum(0)) + 1e-6

    shell = _linear(SHELLS[rng.integers(len(SHELLS))])
    shell = shell * rng.uniform(0.88, 1.06, 3).astype(np.float32)
    albedo = shell * (1 + 0.05 * rng.normal() * u + 0.025 * _waves(rng, u, v, 1, 4, 5))[:, None]
    if rng.random() < 0.4:
        amount = _speckles(rng, u, np.arctan2(v, w))[:, None]
        albedo = albedo * (1 - amount) + _linear(SPECKLES[rng.integers(len(SPECKLES))]) * amount

    to_light = np.array([*egg.turned(*light.xy), np.sin(light.height)], np.float32)
    diffuse = ((to_light @ normal + 0.25) / 1.25).clip(0) ** 1.15
    halfway = to_light + np.array([0, 0, 1], np.float32)
    glint = (halfway / np.linalg.norm(halfway) @ normal).clip(0) ** rng.uniform(14, 50)
    glint = glint * rng.uniform(0.02, 0.16)
    # light from the ground reaches the sides
    bounce = ground.mean((0, 1)) * 0.35 * (1 - normal[2])[:, None]
    sky = light.ambient * (0.45 + 0.55 * normal[2])
    lit = (light.power * diffuse + sky)[:, None] * light.warm + bounce
    return albedo * lit + (glint * light.power)[:, None] * light.warm


def render(number: int, size: int = 128, seed: int = 0) -> np.ndarray:
    """Egg picture `number` of the set `seed`: uint8 (size, size, 3)."""
    rng = np.random.default_rng([seed, number])
    line = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    x, y = line.astype(np.float32)[None, :], line.astype(np.float32)[:, None]
    pixel = 2 / size
    egg, light = _Egg(rng, x, y), _Light(rng)
    *fields, distance = (field.ravel() for field in np.broadcast_arrays(*egg.outline()))
    inside = np.flatnonzero(distance > -pixel)
    points = tuple(field[inside] for field in fields)

    ground = _ground(rng, x, y)
    dark = _shadow(rng, egg, light)
    flat = (ground * (1 - dark * 0.92)[..., None] * light.warm).reshape(-1, 3)
    cover = (distance[inside] / pixel + 0.5).clip(0, 1)[:, None]
    surface = _surface(rng, egg, light, ground, points)
    flat[inside] = flat[inside] * (1 - cover) + surface * cover

    shown = flat.clip(0, 1) ** np.float32(1 / 2.2) * 255
    shown += rng.normal(0, rng.uniform(0.3, 1.8), shown.shape)
    return shown.reshape(size, size, 3).round().clip(0, 255).astype(np.uint8)


def write(folder: Path, number: int = 1000, size: int = 128, seed: int = 0) -> None:
    """Renders `number` eggs into `folder` as egg_0000.jpg and so on."""

    def one(i: int) -> None:
        Image.fromarray(render(i, size, seed)).save(folder / f"egg_{i:04d}.jpg", quality=95)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        list(pool.map(one, range(number)))
