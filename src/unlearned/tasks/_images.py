"""Images from folders, arrays, tables and data sets, as pixel tensors with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unlearned.data.samples import ColumnRows, JoinedRows, MappedRows, Row, Samples
from unlearned.data.tables import columns_of, read_table, rename
from unlearned.errors import Fault, InputError
from unlearned.tasks._models import call_function, is_function
from unlearned.tasks._task import Bundle, Data, DataSource

_METADATA = "metadata.jsonl"
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_images(
    source: DataSource | Data,
    bundle: Bundle,
    field: str,
    like: Samples | None = None,
    numbers: Mapping[str, int] | None = None,
    *,
    instead: Sequence[str] = (),
) -> Samples:
    """Images with labels, made ready by the model's processor if it has one.

    Args:
        source: where from.
        bundle: the model.
        field: named in messages.
        like: data whose classes are numbered already.
        numbers: numbers of classes by name, where it is not the model that names them.
        instead: columns, any of which does in the place of labels; all images are then called 0.

    Raises:
        InputError: if they cannot be read, or have no images or no labels.
    """
    samples = _gather(source, field)
    if len(samples) and "pixel_values" in samples[0]:
        return samples  # made ready before
    config = getattr(bundle.model, "config", None)
    make = partial(_make_row, bundle.companions.get("processor"), getattr(config, "num_channels", None), field)
    facts = dict(samples.facts)
    names = facts.pop("label_name", None)
    if names is not None and "label" not in facts:
        facts["label"] = _label_numbers(names, numbers or getattr(config, "label2id", None), like, field)
    if "label" not in facts and any(name in facts for name in instead):
        facts["label"] = [0] * len(samples.rows)
    if "label" not in facts:
        raise InputError(Fault(field, "the data has no labels.", "Give a column `label` (or map it: columns: {label: your_column})."))
    labels = _check_labels(facts["label"], field)
    rows = MappedRows(JoinedRows(samples.rows, {"labels": torch.tensor(labels)}), make)
    return Samples(rows, samples.all_ids, facts | {"label": labels} | ({"label_name": names} if names is not None else {}), samples.indices)


def _gather(source: DataSource | Data, field: str) -> Samples:
    if not isinstance(source, DataSource):
        return _from_data(source, {}, field)
    path = Path(source.source)
    if is_function(source.source) and not path.exists():
        return _from_data(call_function(source.source, field), source.columns, field)
    if path.is_dir() and not (path / "dataset_info.json").exists() and not (path / "dataset_dict.json").exists():
        return _from_folder(path, field)
    return _from_data(read_table(source, field), source.columns, field)


def from_columns(columns: Mapping[str, Any], ids: Sequence[str] | None, field: str) -> Samples:
    """Samples over columns with an `image` column; every other short column becomes a fact.

    Raises:
        InputError: if there is no image column or the columns differ in length.
    """
    if "image" not in columns:
        raise InputError(
            Fault(field, f"there is no image column among {', '.join(map(repr, columns)) or 'no columns'}.", "Name it: columns: {image: your_column}.")
        )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise InputError(Fault(field, f"the columns differ in length ({shown}).", "Give one value per image in each."))
    facts = {name: _plain(column) for name, column in columns.items() if name != "image" and np.ndim(column) <= 1}
    if facts.get("label") and isinstance(facts["label"][0], str):
        facts["label_name"] = facts.pop("label")
    return Samples(ColumnRows({"image": columns["image"]}), ids, facts)


def _plain(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray | Tensor) else list(column)


def _from_data(data: Any, given: Mapping[str, str], field: str) -> Samples:
    if isinstance(data, Samples):
        return data
    named = rename(
        columns_of(data, ("image", "label"), field),
        given,
        {"image": ("images", "img", "x", "pixel_values"), "label": ("labels", "y", "fine_label", "concept"), "id": ("ids",)},
        field,
    )
    ids = named.pop("id", None)
    return from_columns(named, None if ids is None else [str(i) for i in _plain(ids)], field)


def _from_folder(root: Path, field: str) -> Samples:
    files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise InputError(Fault(field, f"folder {str(root)!r} holds no images.", f"Put them as {root}/CLASS/IMAGE with one of {', '.join(sorted(SUFFIXES))}."))
    if (root / _METADATA).is_file():
        return _from_metadata(root, field)
    loose = [p for p in files if p.parent == root]
    if loose:
        raise InputError(Fault(field, f"{len(loose)} images lie directly in {str(root)!r}, so that they have no class.", f"Put them as {root}/CLASS/IMAGE."))
    names = [p.relative_to(root).parts[0] for p in files]
    ids = [p.relative_to(root).as_posix() for p in files]
    return Samples(ColumnRows({"image": [str(p) for p in files]}), ids, {"label_name": names})


def _from_metadata(root: Path, field: str) -> Samples:
    """A folder with `metadata.jsonl`, as the `datasets` library reads it: one line per image, with `file_name` and further columns."""
    columns = read_table(DataSource(source=str(root / _METADATA)), field)
    if "file_name" not in columns:
        raise InputError(Fault(field, f"{_METADATA} of {str(root)!r} has no column `file_name`.", "Give the path of each image within the folder."))
    names = list(columns.pop("file_name"))
    missing = sum(not (root / str(name)).is_file() for name in names)
    if missing:
        raise InputError(Fault(field, f"{missing} of {len(names)} images that {_METADATA} names are not there.", "Give paths within the folder."))
    return _from_data({"id": [str(name) for name in names], **columns, "image": [str(root / name) for name in names]}, {}, field)


def _label_numbers(names: Sequence[str], known: Mapping[str, int] | None, like: Samples | None, field: str) -> list[int]:
    """Class numbers: as the model names its classes if it names all of these, else as the training data does, else in sorted order, numbers as numbers.

    A test set may lack classes: numbering it by itself would give its classes other numbers.
    """
    distinct = set(names)
    if known and distinct <= set(known):
        return [known[name] for name in names]
    if like is not None and "label_name" in like.facts:
        trained = dict(zip(like.facts["label_name"], like.facts["label"], strict=True))
        unknown = sorted(distinct - set(trained))
        if unknown:
            raise InputError(Fault(field, f"class {unknown[0]!r} does not appear in the training data.", f"Its classes are {', '.join(sorted(trained))}."))
        return [trained[name] for name in names]
    if all(name.isdigit() for name in distinct):
        return [int(name) for name in names]
    if like is not None:
        raise InputError(Fault(field, "the classes have names here and numbers in the training data.", "Name or number them alike."))
    order = {name: i for i, name in enumerate(sorted(distinct))}
    return [order[name] for name in names]


def _check_labels(labels: Sequence[Any], field: str) -> list[int]:
    wrong = [i for i, label in enumerate(labels) if not _is_whole(label)]
    if wrong:
        raise InputError(
            Fault(field, f"{len(wrong)} labels are not whole numbers, first at position {wrong[0]}.", "Give class numbers from 0, or class names as text.")
        )
    return [int(label) for label in labels]


def _is_whole(label: Any) -> bool:
    try:
        return not isinstance(label, bool | str) and int(label) == label and abs(label) < 2**63
    except (TypeError, ValueError, OverflowError):  # None, a list, NaN, infinity
        return False


def _make_row(processor: Any, channels: int | None, field: str, row: Row) -> Row:
    return {"pixel_values": _pixels(row["image"], processor, channels, field), "labels": row["labels"]}


def _pixels(image: Any, processor: Any, channels: int | None, field: str) -> Tensor:
    try:
        if isinstance(image, np.ndarray | Tensor | list) and processor is None:
            return plain_pixels(image)
        picture = _picture(image, {1: "L", 3: "RGB"}.get(channels or 0) or ("RGB" if processor is not None else None))
    except (OSError, TypeError, ValueError, KeyError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: what Pillow says of some broken PNGs
        name = repr(image) if isinstance(image, str) else "an image"
        raise InputError(Fault(field, f"{name} cannot be read as an image ({type(error).__name__}).", "Remove or replace it.")) from error
    if processor is None:
        return plain_pixels(np.asarray(picture))
    return torch.as_tensor(processor(images=picture, return_tensors="pt")["pixel_values"][0])


def _picture(image: Any, mode: str | None) -> Image.Image:
    """A decoded picture in this mode; None: grey where it is grey, else RGB."""
    if isinstance(image, Image.Image):
        return _eight_bits(image).convert(mode or _mode(image))
    if isinstance(image, Mapping):  # how Arrow tables store an image
        image = image.get("bytes") or image["path"]
    if isinstance(image, str | bytes):
        with Image.open(image if isinstance(image, str) else BytesIO(image)) as opened:
            return _eight_bits(opened).convert(mode or _mode(opened))
    array = np.asarray(image)
    made = Image.fromarray(array if array.dtype == np.uint8 else (array * 255).round().clip(0, 255).astype(np.uint8))
    return made.convert(mode or _mode(made))


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Pillow cuts values off at 255 when it converts 16-bit pictures; here the higher byte is taken."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        return Image.fromarray((values >> 8 if values.max() > 255 else values).astype(np.uint8))
    return picture


def _mode(picture: Image.Image) -> str:
    return "L" if picture.mode in {"1", "L", "I;16", "I"} else "RGB"


def plain_pixels(image: np.ndarray[Any, Any] | Tensor | list[Any]) -> Tensor:
    """Pixels as (C, H, W) float32: whole numbers are divided by 255, floats are used as they are.

    (H, W) becomes (1, H, W); (H, W, C) with C of 1, 3 or 4 becomes (C, H, W) unless the first dimension already looks like channels.
    """
    pixels = torch.as_tensor(np.array(image) if not isinstance(image, Tensor) else image)
    whole = not pixels.is_floating_point()
    pixels = pixels.to(torch.float32)
    if whole:
        if bool((pixels > 255).any() or (pixels < 0).any()):
            raise ValueError("whole-number pixels lie outside 0..255")
        pixels = pixels / 255
    if pixels.ndim == 2:
        return pixels[None]
    if pixels.ndim == 3 and pixels.shape[-1] in {1, 3, 4} and pixels.shape[0] not in {1, 3, 4}:
        return pixels.permute(2, 0, 1).contiguous()
    return pixels


def fitted(pixels: Tensor, channels: int, size: tuple[int, int] | None) -> Tensor:
    """An image (C, H, W) with so many channels and of this size.

    Scaled (bicubic, smoothed) until it covers the size, cropped at the centre. Grey becomes colour by repetition, colour grey by its luminance (ITU-R BT.601);
    a fourth channel, transparency, is left out.

    Args:
        pixels: any range; it is not left.
        channels: 1 or 3; with any other number, channels are left alone.
        size: height and width; None: left alone.
    """
    if pixels.ndim != 3:
        return pixels
    if pixels.shape[0] == 4 and channels in {1, 3}:
        pixels = pixels[:3]
    if pixels.shape[0] == 1 and channels == 3:
        pixels = pixels.expand(3, -1, -1)
    elif pixels.shape[0] == 3 and channels == 1:
        pixels = (pixels * pixels.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0, keepdim=True)
    if size is None or tuple(pixels.shape[1:]) == size:
        return pixels
    least, most = float(pixels.min()), float(pixels.max())
    factor = max(size[0] / pixels.shape[1], size[1] / pixels.shape[2])
    covering = [max(wanted, round(factor * have)) for wanted, have in zip(size, pixels.shape[1:], strict=True)]
    scaled = torch.nn.functional.interpolate(pixels[None], size=covering, mode="bicubic", antialias=True, align_corners=False)[0]
    top, left = ((have - wanted) // 2 for wanted, have in zip(size, covering, strict=True))
    return scaled[:, top : top + size[0], left : left + size[1]].clamp(least, most)
