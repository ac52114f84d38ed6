"""Many images in one picture, and pictures in files."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.utils import make_grid

from gan_lightning.files import write_whole


def grid(images: Tensor, columns: int = 8, gap: int = 0, margin: int = 2) -> Tensor:
    """uint8 (B, C, H, W) to one picture (3 or 4, H', W'), `margin` pixels of grey level `gap`
    around each."""
    return make_grid(images, nrow=min(columns, len(images)), padding=margin, pad_value=gap)


def labelled_grid(images: Tensor, labels: Sequence[object], columns: int = 8) -> Image.Image:
    """As `grid`, with a short text beneath each image, such as its seed."""
    return captioned([to_image(image) for image in images], list(map(str, labels)), columns)


def captioned(tiles: Sequence[Image.Image], texts: Sequence[str], columns: int) -> Image.Image:
    """Pictures in rows, each over its text, of several lines or none."""
    font, lines = ImageFont.load_default(10), max(text.count("\n") + 1 for text in texts)
    widths = [max(map(font.getlength, text.split("\n"))) for text in texts]
    wide = max(*(tile.width for tile in tiles), *(int(width) + 1 for width in widths)) + 4
    tall, columns = max(tile.height for tile in tiles), min(columns, len(tiles))
    size = columns * wide, -(-len(tiles) // columns) * (tall + 4 + 12 * lines)
    sheet = Image.new(tiles[0].mode, size)
    pen = ImageDraw.Draw(sheet)
    for k, (tile, text, width) in enumerate(zip(tiles, texts, widths, strict=True)):
        left, top = k % columns * wide, k // columns * (tall + 4 + 12 * lines)
        sheet.paste(tile, (left + (wide - tile.width) // 2, top + 2))
        place = left + (wide - width) / 2, top + tile.height + 3
        pen.multiline_text(place, text, "#b0b0b0", font, spacing=0)
    return sheet


def to_image(picture: Tensor) -> Image.Image:
    """uint8 (C, H, W) of 1, 3 or 4 channels."""
    array = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def save(picture: Tensor, path: Path) -> None:
    """uint8 (C, H, W) as PNG; a reader never sees half a file."""
    save_image(to_image(picture), path)


def save_image(image: Image.Image, path: Path) -> None:
    """As `save`, of a Pillow image."""
    write_whole(path, lambda file: image.save(file, format="PNG", compress_level=1))


def save_film(frames: Sequence[Image.Image], path: Path, duration: int | Sequence[int]) -> None:
    """An endless GIF, each frame shown for `duration` milliseconds."""
    first, more = frames[0], list(frames[1:])
    settings = {"save_all": True, "append_images": more, "duration": duration, "loop": 0}
    write_whole(path, lambda file: first.save(file, format="GIF", **settings))


def save_video(frames: Sequence[Image.Image], path: Path, duration: int) -> None:
    """MP4 (H.264), each frame shown for `duration` milliseconds. Needs PyAV, see `places.needs`."""
    import av

    factor = max(1, 256 // min(frames[0].size))  # small pictures lose their colours in 4:2:0
    width, height = (factor * side + factor * side % 2 for side in frames[0].size)  # even
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(1000, duration), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            whole = frame.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            film.mux(stream.encode(av.VideoFrame.from_image(whole)))
        film.mux(stream.encode())
    write_whole(path, lambda file: file.write(buffer.getvalue()))
