"""Group columns from a CSV file keyed by image file: what they mean, and what each mistake in the file is told as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stub_drawings import SHAPES, drawings
from typer.testing import CliRunner

from pydt.base import ConfigError, DataError
from pydt.cli.app import app
from pydt.data import Dataset
from pydt.data.packing import pack, pack_tar
from pydt.ensemble import read_plan, write_plan

FILES = ("cats/0.png", "cats/1.png", "cats/10.png", "dogs/0.png", "dogs/1.png", "dogs/2.png")
SITES = ("garden", "", "house", "garden", "street", "house")
CSV = "file,site,camera\n" + "".join(
    f"{file},{site},{i % 2}\n" for i, (file, site) in enumerate(zip(FILES, SITES, strict=True))
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, file in enumerate(FILES):
        (tmp_path / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / file)
    return tmp_path / "photos"


def written(photos: Path, text: str | bytes) -> Path:
    path = photos.parent / "photos.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def sites(dataset: Dataset) -> dict[str, str | None]:
    """By file, the slow way."""
    codes, names = dataset.units("site")
    return {key: names[code] if code >= 0 else None for key, code in zip(dataset.all_keys(), codes, strict=True)}


EXPECTED = {file: site or None for file, site in zip(FILES, SITES, strict=True)}


def test_each_image_has_the_entry_of_its_line_in_any_order(photos: Path) -> None:
    plain = Dataset.from_folder(photos)
    head, *lines = CSV.splitlines()
    for text in (CSV, "\n".join([head, *reversed(lines)]), "\ufeff" + CSV.replace("\n", "\r\n"), CSV + "\n\n"):
        made = Dataset.from_folder(photos, columns=written(photos, text))
        assert sites(made) == EXPECTED
        assert made.units("site")[1] == ("garden", "house", "street")
        assert made.units("camera")[1] == ("0", "1")
        assert made.digest == plain.digest  # columns retrain nothing
        assert made.full_digest != plain.full_digest
    assert Dataset.from_folder(photos).full_digest == plain.full_digest


def test_quoted_entries_are_one_entry(photos: Path) -> None:
    text = CSV.replace("street", '"street, ""main""\nnorth"')
    assert sites(Dataset.from_folder(photos, columns=written(photos, text)))["dogs/1.png"] == 'street, "main"\nnorth'


def test_columns_survive_saving_and_both_ways_of_packing(photos: Path, tmp_path: Path) -> None:
    path = written(photos, CSV)
    made = Dataset.from_folder(photos, columns=str(path))
    assert sites(made.save(tmp_path / "index")) == EXPECTED
    packed = pack(photos, tmp_path / "packed", 8, columns=path)
    assert sites(packed) == EXPECTED
    assert packed.digest == pack(photos, tmp_path / "plain", 8).digest
    pack_tar(photos, tmp_path / "shards", columns=path)
    assert set(sites(Dataset.from_tar(tmp_path / "shards", columns=["site"])).items()) == set(EXPECTED.items())
    again = pack(photos, tmp_path / "packed", 8, columns=path)
    assert again.full_digest == packed.full_digest
    with pytest.raises(DataError):
        pack(photos, tmp_path / "packed", 8, columns=written(photos, CSV.replace("street", "road")))


def test_broken_images_may_have_a_line_and_packing_keeps_the_entries_of_the_others(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "cats/1.png").write_bytes(b"")
    damaged = bytearray((photos / "dogs/0.png").read_bytes())
    damaged[45:70] = bytes(25)
    (photos / "dogs/0.png").write_bytes(damaged)
    path = written(photos, CSV)
    made = Dataset.from_folder(photos, bad="skip", columns=path)
    assert sites(made) == {file: site for file, site in EXPECTED.items() if file != "cats/1.png"}
    packed = pack(photos, tmp_path / "packed", 8, bad="skip", columns=path)
    assert sites(packed) == {f: s for f, s in EXPECTED.items() if f not in ("cats/1.png", "dogs/0.png")}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (CSV.replace("cats/10.png", "cats/11.png"), r"line 4: no file 'cats/11.png'. did you mean"),
        (CSV.replace("cats/10.png", "cats\\10.png"), r"line 4: no file .*write 'cats/10.png'"),
        (
            CSV.replace("dogs/2.png", "photos/dogs/2.png"),
            r"line 7: no file .*name it below the folder, as 'dogs/2.png'",
        ),
        (CSV.replace("cats/1.png", "cats/0.png"), r"line 3: 'cats/0.png' has line 2 already"),
        (CSV.replace("cats/1.png,,1\n", ""), r"photos.csv: 1 of 6 images have no line: 'cats/1.png'. give each file"),
        (CSV.replace("house,0", "house"), r"line 4: has 2 fields, the first line has 3"),
        (CSV.replace("house,0", "house,0,x"), r"line 4: has 4 fields, the first line has 3"),
        (CSV.replace(",", ";"), r"line 1: is separated by semicolons. separate fields by commas"),
        (CSV.replace(",", "\t"), r"line 1: is separated by tabs"),
        ("file\n" + "\n".join(FILES), r"line 1: has one column, the files"),
        (CSV.replace("site", "", 1), r"line 1: column 2 has no name"),
        (CSV.replace("camera", "site", 1), r"line 1: column 'site' is there twice"),
        (CSV.replace("camera", "class", 1), r"photos.csv, columns: column name 'class' is taken"),
        (CSV.replace("garden", 'gar"den"', 1).replace(",house", ',"house'), r"is no CSV \("),
        ("", r"photos.csv: is empty"),
        (CSV.encode("utf-16"), r"is no UTF-8 at byte 0. save it as UTF-8"),
        (CSV.replace("house", "h\xe4user").encode("latin-1"), r"is no UTF-8 at byte"),
        (CSV.replace("street", "garden "), r"photos.csv, column 'site'"),
    ],
)
def test_each_mistake_is_told_with_its_line_and_mend(photos: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(DataError, match=told):
        Dataset.from_folder(photos, columns=written(photos, text))


def test_a_file_that_is_not_there_is_named(photos: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.csv: cannot be read"):
        Dataset.from_folder(photos, columns=photos.parent / "nowhere.csv")


def test_a_plan_groups_by_a_column_and_is_written_and_read_again(photos: Path, tmp_path: Path) -> None:
    written(photos, CSV)
    drawings(tmp_path / "task", SHAPES[:2], 40)
    text = """
    by = "site"
    [source]
    folder = "photos"
    columns = "photos.csv"
    [design]
    kind = "random"
    models = 8
    alpha = 0.5
    [[tasks]]
    target.train.folder = "task"
    """
    (tmp_path / "plan.toml").write_text(text)
    plan = read_plan(tmp_path / "plan.toml").plan
    assert plan.context.units[1] == ("garden", "house", "street")
    write_plan(plan, tmp_path / "copy.toml")
    assert read_plan(tmp_path / "copy.toml").plan.digest == plan.digest
    (tmp_path / "plan.toml").write_text(text.replace('"photos.csv"', '["site"]'))
    with pytest.raises(ConfigError, match=r"columns: is .*name a CSV file"):
        read_plan(tmp_path / "plan.toml")


def test_the_commands_take_and_show_columns(photos: Path, tmp_path: Path) -> None:
    path = written(photos, CSV)
    shown = CliRunner().invoke(app, ["inspect", str(photos), "--columns", str(path)])
    assert (
        "3 groups of site, from the smallest to the largest: street (1), garden (2), house (2); in none: 1"
        in shown.output
    )
    done = CliRunner().invoke(app, ["pack", str(photos), str(tmp_path / "out"), "--size", "8", "--columns", str(path)])
    assert done.exit_code == 0, done.output
    again = CliRunner().invoke(app, ["inspect", str(tmp_path / "out")])
    assert "3 groups of site" in again.output
