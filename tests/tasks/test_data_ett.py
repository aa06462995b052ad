import gzip
import hashlib

import numpy as np
import pytest

from tasks.data import load_ett

TEXT = "date,HUFL,OT\n2016-07-01 00:00:00,1.5,-2\n2016-07-01 01:00:00,3,0.25\n"


def write(root, text=TEXT, name="ETTh1.csv", folder="ett"):
    (root / folder).mkdir()
    content = text.encode()
    content = gzip.compress(content) if name.endswith("gz") else content
    (root / folder / name).write_bytes(content)


@pytest.mark.parametrize("name", ["ETTh1.csv", "ETTh1.csv.gz"])
@pytest.mark.parametrize("folder", ["ett", "ETT-small"])
def test_every_layout_gives_the_same_table(tmp_path, name, folder):
    write(tmp_path, name=name, folder=folder)
    for data_dir in tmp_path, tmp_path / folder:
        series = load_ett("etth1", data_dir)
        assert series.columns == ("HUFL", "OT")
        assert (series.name, series.source) == ("etth1", name)
        assert series.values.tolist() == [[1.5, -2], [3, 0.25]]
        assert series.values.dtype == np.float64
        assert series.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
        assert series.select(("OT", "HUFL")).tolist() == [[-2, 1.5], [0.25, 3]]


def test_what_is_missing_and_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_ett("ettm2", tmp_path)
    for part in ("ETTm2.csv", "ETTm2.csv.gz", "ETT-small", "github.com/zhouhaoyi"):
        assert part in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'etth"):
        load_ett("etth", tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "starts with ''"),
        ("date,OT\n", "followed by 0 rows"),
        ("time,OT\n2016,1\n", "starts with 'time,OT'"),
        ("date,OT\n2016,1\n2017,1,2\n", "is not a table"),
        ("date,OT\n2016,one\n", "is not a table.*'one'"),
        ("date,OT\n2016,\n", "is not a table"),
        ("date,OT,HUFL\n2016,1\n", "2 finite numbers in each row"),
        ("date,OT\n2016,nan\n", "1 finite numbers in each row"),
    ],
)
def test_what_is_not_such_a_table(tmp_path, text, message):
    write(tmp_path, text)
    with pytest.raises(ValueError, match=rf"(?s)ETTh1\.csv.*{message}"):
        load_ett("etth1", tmp_path)


def test_unknown_column(tmp_path):
    write(tmp_path)
    with pytest.raises(ValueError, match="unknown etth1 column 'ot'"):
        load_ett("etth1", tmp_path).select(("ot",))
