"""Which source should one pre-train on, how large, by which method, and when does it stop mattering: grids of arms
whose rows lie in one store, and their page. Imports every room but `cli`.
"""

from pydt.studies.analysis import study_report
from pydt.studies.mixture_plan import mixture_cost, mixture_plan
from pydt.studies.mixtures import MixturesByShots, mixtures_by_shots
from pydt.studies.running import run_study, study_cost, study_parts
from pydt.studies.sources import Mixture, Source, as_source
from pydt.studies.study import PublicModel, Study
from pydt.studies.study_file import StudyFile, read_study
from pydt.studies.values import Cell, cells_of
