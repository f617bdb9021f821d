"""What models look at. A Dataset is an index over bytes that already exist; a Target is one, split for good; a Loader
(`pydt.data.loading`) gives batches of a masked subset. Imports `base`. Only `loading` imports torch.
"""

from pydt.data.dataset import Dataset, open_folder, read_container, spool
from pydt.data.formats import READERS
from pydt.data.groups import Groups
from pydt.data.guard import GuardedTarget, guarded
from pydt.data.identical import not_compared, shared_images, shared_units
from pydt.data.name_lists import read_list
from pydt.data.persistence import has_index
from pydt.data.replica import Need, copy_of, missing, receive, send
from pydt.data.target import HALVES, Target
from pydt.data.thumbnails import pictures, places
