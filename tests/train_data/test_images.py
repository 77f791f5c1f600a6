"""Folders and archives of image files: what is in them, what is not, and what can't be."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tonsor.errors import DataError
from tonsor.train.data import Batches, Subset, images, open_data
from tonsor.train.data.folder import Folder

RNG = np.random.default_rng(0)


def png(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png", **options)
    return file.getvalue()


def picture(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, raw in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
    return folder


def packed(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "some.zip", "w") as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return folder / "some.zip"


def tree(*parts: str, count: int = 5, **pixels: np.ndarray) -> dict[str, bytes]:
    """Two classes of `count` images each in each part."""
    return {
        f"{part}{label}/{n}.png": png(picture(6, 7, 3))
        for part in parts
        for label in ("cat", "dog")
        for n in range(count)
    }


def every(source: Any) -> np.ndarray:
    return source.take(torch.arange(len(source))).numpy()


@pytest.mark.parametrize("how", [write, packed])
@pytest.mark.parametrize("above", ["", "pets/", "a/b/"])
def test_parts_and_classes_are_found(tmp_path: Path, how: Any, above: str) -> None:
    files = tree(f"{above}train/", f"{above}val/", f"{above}test/")
    data = open_data(how(tmp_path / "x", files))
    assert data.classes == ("cat", "dog")
    assert data.shape == (3, 6, 7)
    assert data.validation is not None
    for part, source in (("train", data.train), ("val", data.validation), ("test", data.test)):
        names = sorted(name for name in files if f"{part}/" in name)
        wanted = [np.array(Image.open(io.BytesIO(files[name]))) for name in names]
        assert np.array_equal(every(source), np.stack(wanted).transpose(0, 3, 1, 2))
        assert source.labels.tolist() == [int("dog" in name) for name in names]
    assert data.notes == ()


def test_val_is_tested_on_where_there_is_no_test(tmp_path: Path) -> None:
    data = open_data(write(tmp_path, tree("train/", "val/")))
    assert data.validation is None
    assert (len(data.train), len(data.test)) == (10, 10)
    assert "'val' is what is tested on" in data.notes[0]


@pytest.mark.parametrize("part", ["", "train/"])
def test_a_fifth_is_tested_on_where_there_is_only_one_part(tmp_path: Path, part: str) -> None:
    data = open_data(write(tmp_path, tree(part)))
    assert (len(data.train), len(data.test)) == (8, 2)
    assert data.test.labels.tolist() == [0, 1]
    assert "2 of 10 are kept for testing" in data.notes[0]


KINDS = {
    "RGB": picture(6, 7, 3),
    "grey": picture(6, 7),
    "RGBA": picture(6, 7, 4),
    "grey and alpha": picture(6, 7, 2),
    "16 bits": RNG.integers(0, 2**16, (6, 7), dtype=np.uint16),
}


def test_every_kind_of_colour_becomes_the_same(tmp_path: Path) -> None:
    files = {f"a/{kind}.png": png(pixels) for kind, pixels in KINDS.items()}
    palette = Image.fromarray(KINDS["RGB"]).quantize(7)
    for name, options in (("palette", {}), ("see-through", {"transparency": b"\0\x40\xff"})):
        file = io.BytesIO()
        palette.save(file, "png", **options)
        files[f"a/{name}.png"] = file.getvalue()
    one = Image.fromarray(KINDS["grey"]).convert("1")
    file = io.BytesIO()
    one.save(file, "bmp")
    files["a/bits.bmp"] = file.getvalue()
    files |= {f"b/{n}.png": png(picture(6, 7, 3)) for n in range(8)}
    files |= {f"test/{name}": raw for name, raw in files.items()}
    files = {f"train/{n}" if not n.startswith("test") else n: raw for n, raw in files.items()}
    data = open_data(write(tmp_path, files))
    assert isinstance(data.train, Subset)
    names = sorted(name for name in files if name.startswith("train/a"))
    got = dict(zip((Path(n).stem for n in names), every(data.train)[: len(names)], strict=True))
    assert np.array_equal(got["RGB"], KINDS["RGB"].transpose(2, 0, 1))
    assert np.array_equal(got["grey"], np.stack([KINDS["grey"]] * 3))
    assert np.array_equal(got["16 bits"], np.stack([(KINDS["16 bits"] >> 8)] * 3))
    assert np.array_equal(got["bits"], np.stack([np.array(one).astype(np.uint8) * 255] * 3))
    alpha = KINDS["RGBA"][..., 3:] / 255
    wanted = (KINDS["RGBA"][..., :3] * alpha).transpose(2, 0, 1)
    assert np.abs(got["RGBA"] - wanted).max() <= 1
    wanted = KINDS["grey and alpha"][..., 0] * (KINDS["grey and alpha"][..., 1] / 255)
    assert np.abs(got["grey and alpha"] - wanted).max() <= 1
    plain = np.array(palette.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(got["palette"], plain)
    index = np.array(palette)
    share = np.choose(np.minimum(index, 3), [0, 0x40 / 255, 1, 1])
    assert np.abs(got["see-through"] - plain * share).max() <= 1
    assert "8 of 32 images are grey" in data.notes[0]


def test_grey_images_alone_have_one_channel(tmp_path: Path) -> None:
    files = {f"{c}/{n}.png": png(picture(5, 5)) for c in "ab" for n in range(5)}
    assert open_data(write(tmp_path, files)).shape == (1, 5, 5)


def test_images_of_several_sizes_need_a_size_to_be_brought_to(tmp_path: Path) -> None:
    files = tree("") | {"cat/wide.png": png(picture(6, 30, 3)), "dog/t.png": png(picture(9, 6, 3))}
    with pytest.raises(
        DataError, match=r"3 sizes: 10 of 12 are 7x6, 'cat/wide.png' is not.*size=S"
    ):
        open_data(write(tmp_path, files))
    assert open_data(tmp_path, size=4).shape == (3, 4, 4)


def test_resizing_covers_the_square_and_keeps_the_middle(tmp_path: Path) -> None:
    strip = np.zeros((8, 40, 3), np.uint8)
    strip[:, 16:24, 0] = 255  # what is in the middle is red
    tall = np.ascontiguousarray(strip.transpose(1, 0, 2))
    ground = np.full((80, 80, 3), 90, np.uint8)
    files = {f"{c}/{n}.png": png(p) for c in "ab" for n, p in enumerate((strip, tall, ground))}
    files |= {f"test/{n}": r for n, r in files.items()}
    files = {n if n.startswith("test") else f"train/{n}": r for n, r in files.items()}
    got = every(open_data(write(tmp_path, files), size=8).train)
    assert (got[0] == strip[:, 16:24].transpose(2, 0, 1)).all()
    assert (got[1] == tall[16:24].transpose(2, 0, 1)).all()
    assert (got[2] == 90).all()


def test_a_thin_strip_does_not_grow_before_it_is_cut(tmp_path: Path) -> None:
    files = tree("") | {"cat/strip.png": png(np.full((1, 60_000), 7, np.uint8))}
    data = open_data(write(tmp_path, files), size=400)  # 400 x 24,000,000 if scaled first
    assert data.shape == (3, 400, 400)


def test_a_picture_taken_sideways_is_turned(tmp_path: Path) -> None:
    pixels = picture(4, 9, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise to be looked at
    turned = png(pixels, exif=exif)
    upright = png(np.ascontiguousarray(np.rot90(pixels, -1)))
    files = {f"{c}/{n}.png": raw for c in "ab" for n, raw in enumerate((turned, upright))}
    got = every(
        open_data(
            write(tmp_path, {f"{p}/{n}": r for n, r in files.items() for p in ("train", "test")})
        ).train
    )
    assert got.shape == (4, 3, 9, 4)
    assert np.array_equal(got[0], got[1])


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    whole = png(picture(6, 7, 3))
    float_image = io.BytesIO()
    Image.fromarray(np.zeros((6, 7), np.float32)).save(float_image, "tiff")
    files = tree("train/", "test/") | {
        "train/cat/none.png": b"",
        "train/cat/page.jpg": b"<html></html>",
        "train/dog/cut.png": whole[: len(whole) // 2],
        "test/dog/float.tiff": float_image.getvalue(),
        "train/loose.png": whole,
        "train/dog/readme.txt": b"hello",
        "train/dog/.DS_Store": b"x",
        "train/dog/._1.png": b"x",
    }
    with pytest.warns(UserWarning, match="5 images are left out: 'train/loose.png'") as warned:
        data = open_data(write(tmp_path, files))
    assert warned[0].filename == __file__
    assert (len(data.train), len(data.test)) == (10, 10)
    note = data.notes[0]
    for name in ("none.png' (no image", "page.jpg' (no image", "cut.png'", "float.tiff' (its pix"):
        assert name in note
    assert data.notes[1] == "1 files are no images by their names"
    with pytest.raises(DataError, match=r"5 images can't be used: 'train/loose\.png'"):
        open_data(tmp_path, strict=True)


def test_a_picture_that_starts_another_program_is_not_opened(tmp_path: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 7\n%%EndComments\nshowpage\n"
    with pytest.warns(UserWarning, match=r"eps\.png' \(no image of a known format\)"):
        open_data(write(tmp_path, tree("") | {"cat/eps.png": eps}))


def break_class(files: dict[str, bytes]) -> dict[str, bytes]:
    return {n: b"bad" if n.startswith("train/dog") else raw for n, raw in files.items()}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a/readme.txt": b"x"}, "has no images; looked for a subfolder for each class"),
        ({"cat/1.png": b"", "dog/1.png": b""}, "none of 2 images can be read"),
        (
            break_class(tree("train/", "test/")),
            "no training image can be read of the classes 'dog'",
        ),
        ({"cat/1.png": png(picture(2, 2))}, r"in 1 class folders \('cat'\).*at least two"),
        ({"1.png": png(picture(2, 2)), "2.png": png(picture(2, 2))}, r"in 0 class folders"),
        (tree("val/", "test/"), "in 0 class folders"),
        (tree("train/") | {"cow/1.png": b"x"}, "has 'cow', 'train' side by side"),
        (tree("train/", "test/") | {"test/cow/1.png": b"x"}, "without training images: 'cow'"),
        (tree("") | {"cow/notes.txt": b"x"}, "class folders without images, 'train: cow'"),
        ({f"{c}/1.png": png(picture(2, 2)) for c in "ab"}, "2 of 2 classes have but one image"),
    ],
    ids=[f"case{n}" for n in range(10)],
)
@pytest.mark.parametrize("how", [write, packed])
def test_trees_that_make_no_sense_are_refused(
    tmp_path: Path, how: Any, files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        open_data(f"folder:{how(tmp_path, files)}")


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    (write(tmp_path / "disk", tree("train/", "test/")) / "train" / "cow").mkdir()
    with pytest.raises(DataError, match="class folders without images, 'train: cow'"):
        open_data(tmp_path / "disk")
    path = packed(tmp_path, tree(""))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cow/", b"")
    with pytest.raises(DataError, match="class folders without images, 'train: cow'"):
        open_data(path)


def test_class_folders_may_be_links_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "real", tree(""))
    (tmp_path / "few").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "few" / name).symlink_to(tmp_path / "real" / name)
    (tmp_path / "real" / "cat" / "again").symlink_to(tmp_path / "real" / "cat")
    assert len(open_data(tmp_path / "few").train) == 8


def entry(name: str, **more: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for key, value in more.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (entry("../cat/1.png"), "leads out of the archive"),
        (entry("cat/../../1.png"), "leads out of the archive"),
        (entry("/etc/1.png"), "leads out of the archive"),
        (entry("C:/1.png"), "a backslash or a drive"),
        (entry("cat/l.png", external_attr=(stat.S_IFLNK | 0o777) << 16), "is a link"),
        (entry("cat/1.png"), "is there twice"),
    ],
    ids=lambda value: getattr(value, "filename", ""),
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_with_tricks_are_refused(tmp_path: Path, info: zipfile.ZipInfo, said: str) -> None:
    path = packed(tmp_path, tree(""))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, b"x")
    with pytest.raises(DataError, match=f"is refused: its entry .*{said}"):
        open_data(path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["some.zip"]


def patched(path: Path, old: bytes, new: bytes) -> Path:
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))
    return path


def test_a_backslash_is_refused(tmp_path: Path) -> None:
    path = patched(packed(tmp_path, tree("") | {"cat/x_1.png": b"x"}), b"cat/x_1", b"cat\\..1")
    with pytest.raises(DataError, match=r"a backslash or a drive|leads out"):
        open_data(path)


def test_an_entry_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in tree("").items():
            archive.writestr(name, raw)
        with archive.open("cat/big.png", "w", force_zip64=True) as file:
            for _ in range(301):
                file.write(bytes(1_000_000))
    with pytest.raises(DataError, match=r"cat/big.png' says it unpacks to 301,000,000 bytes"):
        open_data(path)


@pytest.mark.parametrize("raw", [b"", b"PK", b"no archive at all" * 9])
def test_what_is_no_archive_is_named(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "some.zip").write_bytes(raw)
    with pytest.raises(DataError, match=r"some\.zip' is no zip archive"):
        open_data(tmp_path / "some.zip")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_damaged_archive_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(packed(tmp_path, tree("", count=2)).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "bad.zip").write_bytes(raw)
    said = ""
    try:
        open_data(tmp_path / "bad.zip", size=4)
    except DataError as error:
        said = str(error)
    assert not said or "bad.zip" in said


@pytest.mark.parametrize("how", [write, packed])
def test_a_set_too_large_for_memory_is_decoded_as_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    path = how(tmp_path / "x", tree("train/", "test/"))
    kept = open_data(path)
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    lazy = open_data(path)
    assert isinstance(lazy.train, Subset)
    assert isinstance(lazy.train.source, Folder)
    assert not lazy.train.in_memory
    assert np.array_equal(every(lazy.train), every(kept.train))
    assert lazy.mean == kept.mean
    common: dict[str, Any] = {"size": 4, "mean": lazy.mean, "std": lazy.std, "seed": 0}
    pairs = zip(
        Batches(lazy.train, shuffle=True, **common).epoch(0),
        Batches(kept.train, shuffle=True, **common).epoch(0),
        strict=True,
    )
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_an_image_that_goes_bad_later_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "IN_MEMORY", 0)
    data = open_data(write(tmp_path, tree("train/", "test/")))
    (tmp_path / "train/cat/2.png").unlink()
    with pytest.raises(DataError, match=r"can't read 'train/cat/2\.png'"):
        every(data.train)
