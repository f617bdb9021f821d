"""Small PNG images of three shapes, as eight cameras take them: camera 3 is out of focus, camera 6 swaps two labels."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SHAPES = ("circle", "cross", "square")


def take(folder: Path, camera: int, each: int) -> None:
    """Write `each` images of every shape to folder/SHAPE/CAMERA-NUMBER.png."""
    random = np.random.default_rng(camera)
    for label, shape in enumerate(SHAPES):
        told = (1, 0, 2)[label] if camera == 6 else label
        (folder / SHAPES[told]).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            noise = random.integers(0, 90, (32, 32, 3), dtype=np.uint8)
            image, colour = Image.fromarray(noise), tuple(random.integers(90, 255, 3).tolist())
            x, y, size = random.integers(3, 12), random.integers(3, 12), random.integers(12, 18)
            box = [int(x), int(y), int(x + size), int(y + size)]
            draw = ImageDraw.Draw(image)
            if shape == "circle":
                draw.ellipse(box, outline=colour, width=3)
            elif shape == "square":
                draw.rectangle(box, outline=colour, width=3)
            else:
                draw.line(box, fill=colour, width=3)
                draw.line([box[0], box[3], box[2], box[1]], fill=colour, width=3)
            if camera == 3:
                image = image.filter(ImageFilter.GaussianBlur(3))
            image.save(folder / SHAPES[told] / f"{camera}-{number:02d}-{shape}.png")
