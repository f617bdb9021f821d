"""How numbers look: text, CSV, SVG, HTML. Takes plain values and gives files; decides and computes nothing. Imports
`base`.
"""

from pydt.reporting.axes import curve_plot, interval_plot, scatter_plot
from pydt.reporting.csv_files import COLUMNS, csv_file, write_csv
from pydt.reporting.judgements import FEW_DF
from pydt.reporting.metric import ACCURACY, Metric
from pydt.reporting.next_steps import Place
from pydt.reporting.page import (
    PICTURES,
    Block,
    Column,
    Curve,
    Images,
    Intervals,
    Multiples,
    Page,
    Scatter,
    Table,
    csv_of,
)
from pydt.reporting.page_html import write_pages
from pydt.reporting.page_links import PAGES, REPORT, link_pages
from pydt.reporting.page_links import listed as listed_pages
from pydt.reporting.report_html import render
from pydt.reporting.sentences import sentences
from pydt.reporting.sentences_in_detail import stopped
from pydt.reporting.study_html import study_page
from pydt.reporting.study_sentences import equivalence_sentence, recommendation_sentences, scratch_sentence
from pydt.reporting.study_tables import study_csv
from pydt.reporting.text import (
    called,
    called_output,
    count,
    digits_for,
    finite,
    legible,
    listed,
    number,
    p_text,
    percent_range,
    percent_text,
    plus_minus,
    points,
    quoted,
    signs,
)
