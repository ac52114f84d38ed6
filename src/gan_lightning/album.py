"""The pictures that a run leaves: grids, their nearest photographs, others' pictures, the film."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gan_lightning import boards, pictures
from gan_lightning.data.images import to_uint8
from gan_lightning.files import write_whole
from gan_lightning.measure.distances import nearest
from gan_lightning.measure.snapshot import GRID, Moment

FRAMES = 100  # of the film, each of at most 512 pixels

MakePicture = Callable[[Moment], Tensor]  # uint8 (C, H, W)


class Album:
    """Writes to RUN_DIR/images and RUN_DIR/results, and to the loggers that show pictures."""

    def __init__(self, painters: Mapping[str, MakePicture]) -> None:
        self.painters = painters
        self.drawn = -1  # images shown at the last grid
        self.name = ""  # of that moment

    def begin(self, trainer: Any) -> None:
        self.trainer, self.folder = trainer, Path(trainer.default_root_dir)

    def draw(self, moment: Moment, name: str) -> None:
        """The grid, the discriminator's probabilities for it as float32 (8, 8), and others'."""
        self.drawn, self.name = moment.nimg, name
        self.keep("generated", moment.grid, f"fake_images_{name}", moment.nimg)
        probabilities = moment.grid_probabilities.view(8, 8).numpy()
        path = self.folder / "results" / f"discriminator_outputs_{name}.npy"
        write_whole(path, lambda file: np.save(file, probabilities))
        for own, paint in self.painters.items():
            picture = paint(moment)
            pictures.save(picture, self.folder / "images" / f"{own}_{name}.png")
            self.log(own, picture, moment.nimg)

    def keep(self, tag: str, images: Tensor, name: str, nimg: int) -> None:
        picture = pictures.grid(to_uint8(images.float().cpu()))
        pictures.save(picture, self.folder / "images" / f"{name}.png")
        self.log(tag, picture, nimg)

    def log(self, tag: str, picture: Tensor, nimg: int) -> None:
        boards.show_picture(self.trainer, tag, picture, nimg)

    def beside(self, moment: Moment, rows: Tensor) -> None:
        """For each image of the grid the training image with the nearest features, of these
        rows."""
        store = moment.reals.data.train_images
        known = moment.reals.features(store, rows)
        found = nearest(moment.features[:GRID], known)[1][:, 0]
        picture = pictures.grid(store[rows[found]])
        pictures.save(picture, self.folder / "images" / f"nearest_{self.name}.png")

    @staticmethod
    def _small(path: Path) -> Image.Image:
        with Image.open(path, formats=("PNG",)) as file:
            frame = file.convert("RGB")
        frame.thumbnail((512, 512))
        return frame

    def film(self) -> None:
        """images/training.gif from the grids so far."""
        found = (self.folder / "images").glob("fake_images_*.png")
        paths = sorted(path for path in found if not path.is_symlink())
        some = paths[:: max(1, -(-len(paths) // FRAMES))]
        frames = [self._small(path) for path in some]
        if frames:
            times = [200] * (len(frames) - 1) + [2000]  # milliseconds; the last one stands
            pictures.save_film(frames, self.folder / "images" / "training.gif", times)
