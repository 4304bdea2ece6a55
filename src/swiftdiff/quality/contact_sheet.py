"""Draws contact sheets: many pictures on one page, with captions and a frame that says what was right."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from swiftdiff.errors import StorageError
from swiftdiff.scenes import control_from_scene

from .evaluate import Evaluation
from .plan import BASE, sample

Image8 = NDArray[np.uint8]

_GAP: Final = 10
_LINE: Final = 13
_PAPER: Final = (255, 255, 255)
_INK: Final = (40, 40, 40)
_FRAMES: Final = {None: (205, 205, 205), True: (60, 150, 80), False: (200, 50, 50)}


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture with a caption under it; the frame is green if it is right, red if wrong, else grey."""

    picture: Path | Image8
    caption: str = ""
    is_right: bool | None = None


def write_contact_sheets(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write the sheets of the base, the ControlNets and the LoRAs, as far as their pictures exist.

    Raises:
        StorageError: A picture cannot be read or a sheet cannot be written.
    """
    sheets = {
        "contact-base.png": (_base_rows(evaluation, folder), "base: green frames are right in everything"),
        "contact-controlnets.png": (_control_rows(evaluation, folder), "each control image and its picture"),
        "contact-loras.png": (_lora_rows(evaluation, folder), "the same prompt and seed in every style"),
    }
    written = []
    for name, (rows, title) in sheets.items():
        if rows:
            write_sheet(folder / name, rows, title)
            written.append(folder / name)
    return written


def write_sheet(path: Path, rows: Sequence[Sequence[Cell]], title: str) -> None:
    """Write rows of cells as one PNG; all pictures are shown in the size of the first.

    Raises:
        StorageError: A picture cannot be read or the sheet cannot be written.
    """
    try:
        pictures = [[_open(cell.picture) for cell in row] for row in rows]
        width, height = pictures[0][0].size
        letters = max(8, width // 6)
        heights = [
            height + _GAP + _LINE * max(len(textwrap.wrap(cell.caption, letters)) for cell in row)
            for row in rows
        ]
        columns = max(len(row) for row in rows)
        page = Image.new("RGB", (_GAP + columns * (width + _GAP), 2 * _GAP + _LINE + sum(heights)), _PAPER)
        pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=11)
        pen.text((_GAP, _GAP // 2), title, _INK, font)
        top = _GAP + _LINE
        for row, images, row_height in zip(rows, pictures, heights, strict=True):
            for column, (cell, image) in enumerate(zip(row, images, strict=True)):
                left = _GAP + column * (width + _GAP)
                box = (left - 2, top - 2, left + width + 1, top + height + 1)
                pen.rectangle(box, outline=_FRAMES[cell.is_right], width=2)
                page.paste(image.resize((width, height)), (left, top))
                text = "\n".join(textwrap.wrap(cell.caption, letters))
                pen.multiline_text((left, top + height + 2), text, _INK, font, spacing=1)
            top += row_height
        page.save(path, optimize=True)
    except OSError as error:
        raise StorageError(f"cannot write contact sheet {path}: {error}") from error


def _open(picture: Path | Image8) -> Image.Image:
    if isinstance(picture, Path):
        with Image.open(picture) as image:
            return image.convert("RGB")
    return Image.fromarray(picture)


def _base_rows(evaluation: Evaluation, folder: Path, columns: int = 8, rows: int = 8) -> list[list[Cell]]:
    cells = [
        Cell(folder / record.picture, record.prompt, record.all_right)
        for name in (BASE, "held_out")
        for record in evaluation.records.get(name, ())[
            : columns * rows * 3 // 4 if name == BASE else columns * 2
        ]
    ]
    return [cells[start : start + columns] for start in range(0, len(cells), columns)]


def _control_rows(evaluation: Evaluation, folder: Path, columns: int = 4) -> list[list[Cell]]:
    rows = []
    for item in evaluation.sets:
        if item.controlnet is None:
            continue
        cells: list[Cell] = []
        for record in evaluation.records[item.name][: columns * 2]:
            image = np.asarray(_open(folder / record.picture))
            scene = sample(item, record.index, evaluation.options).scene
            control = control_from_scene(item.controlnet, scene, image.shape[0])
            score = f"{item.controlnet} {record.adherence[item.controlnet]:.2f}"
            cells += [Cell(control, record.prompt), Cell(image, score, record.all_right)]
        rows += [cells[start : start + 2 * columns] for start in range(0, len(cells), 2 * columns)]
    return rows


def _lora_rows(evaluation: Evaluation, folder: Path, rows: int = 8) -> list[list[Cell]]:
    styled = [item for item in evaluation.sets if item.lora and evaluation.records[item.name]]
    if not styled:
        return []
    shown: list[list[Cell]] = []
    base = {record.index: record for record in evaluation.records[BASE]}
    sets = {item.name: {record.index: record for record in evaluation.records[item.name]} for item in styled}
    for index in range(rows):
        if not any(index in records for records in sets.values()):
            continue
        cells = [Cell(folder / base[index].picture, base[index].prompt)] if index in base else []
        for item in styled:
            if index in sets[item.name]:
                record = sets[item.name][index]
                cells.append(Cell(folder / record.picture, record.style, record.style == item.lora))
        shown.append(cells)
    return shown
