"""What every room stands on: errors that say the mend, checked arguments, digests, files that are whole or not
there, counter-based random numbers, threads. Imports nothing of pydt but the compiled core; every room may import it.
"""

from pydt.base.checks import (
    UNNAMED,
    as_names,
    as_path,
    one_of,
    place_by_name,
    real,
    share,
    shown,
    suggest,
    to_array,
    whole,
)
from pydt.base.console import open_streams, progress, tell, terminal
from pydt.base.digests import array_digest, canonical_json, digest, digest_part, escaped, hash_order
from pydt.base.errors import (
    ConfigError,
    DataError,
    DataWarning,
    DesignError,
    EstimateError,
    PydtError,
    StoreError,
    TrainError,
)
from pydt.base.files import Folder, append_line, building, clear, gone, machine, move, remove, write_atomic, writing
from pydt.base.locks import exclusive, holder
from pydt.base.notebook import SHOWN, extremes, html_table, influence_table, notebook_display, to_frame
from pydt.base.npy import check_length, file_stamp, npy_header, npy_path, open_npy
from pydt.base.parallel import GPU_SHARE, available, gpu_share, one_blas_thread, share_out, threads
from pydt.base.quantiles import Z975, t975
from pydt.base.regular_files import (
    LARGEST_TEXT,
    Unreadable,
    exactly,
    open_regular,
    opened,
    path_text,
    read,
    read_json,
    text_of,
)
from pydt.base.results import Result, Short, records
from pydt.base.rng import generator, seed31
from pydt.base.strict_json import HEX32, HEX64, SEED, Form, check, once, parse
from pydt.base.tables import column_names, refuse_other_rows
from pydt.base.tensorfile import checksum, encode, header_of, load
