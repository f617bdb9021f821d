"""Layouts in which ensembles were released, by name: what their files hold, in which unit, and which rows are whole."""

from pydt.store.layouts.common import Layout
from pydt.store.layouts.data_transfer import DATA_TRANSFER
from pydt.store.layouts.datamodels import DATAMODELS

LAYOUTS: dict[str, Layout] = {"datamodels": DATAMODELS, "data-transfer": DATA_TRANSFER}
