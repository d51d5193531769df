"""Thresholds and constants of metrics and flags, each with its unit or reason.

docs/thresholds.md is made from these lines and their comments.
"""
from __future__ import annotations

SIGNIFICANT_DIGITS = 6        # of published values
MIN_QUARTILE_N = 4            # quartiles need at least one value per quarter
TAIL_FLOORS = {"p90": (90, 64), "p95": (95, 130), "p99": (99, 662)}  # percent, values needed
DECODE_GAPS = 64              # chunks a decode rate covers: tokens get slower as an answer grows
MIN_DECODE_GAPS = 32          # chunks; below, one late packet changes the rate by several percent
MIN_TPOT_TOKENS = 32          # tokens after the first read; for the same reason
MIN_PREFILL_TOKENS = 512      # uncached; below, queue and network take longer than the prompt
CACHED_SHARE = 0.10           # of a prompt; above, the prompt counts as cached
CACHED_FLOOR_TOKENS = 64      # tokens of a chat template's beginning, which comes before any salt
MIN_INTERVAL_N = 6              # values; with fewer, a median has no exact interval

# Whether a server's own counts are plausible. No tokenizer in use packs three words into a token.
MAX_WORDS_PER_TOKEN = 3       # words; above, the count is implausible
SPARE_TOKENS = 16             # end marks and tags around reasoning count, but show no text
MAX_CHUNKS_PER_TOKEN = 1.1    # a proxy may split a text; no server sends one token in two chunks
SPARE_TOTAL_TOKENS = 2        # by which total_tokens may exceed prompt and answer
LETTERS_PER_TOKEN = 3         # conservative: English has over 4, code 3
MIN_HIDDEN_RATIO = 1.5        # tokens per chunk of text above which reasoning may be hidden
MIN_CONSTANT_CALLS = 5        # different texts; if all have one count, it is no count

MIN_DRIFT_N = 12              # decode rates; fewer show no drift
DRIFT_RATIO = 0.10            # change of the decode rate over the run, along Theil and Sen's line
OUTLIER_SIGMAS = 10.0         # hyperfine's threshold
OUTLIER_RATIO = 0.20          # of the median; if nearly all are equal, 10 sigma are almost zero
UNSTABLE_IQR_RATIO = 0.10     # of the median; pyperf calls 10 % unstable
UNSTABLE_LANES_IQR_RATIO = 0.25   # on several lanes, whose number of busy ones varies by design
LAG_SHARE = 0.01              # limit for the client's own delay, as a share of what is measured
SATURATION_SHARE = 1 / 3      # of the chunk rate that the client can receive
SUSPENDED_US = 2_000_000      # a call with a longer pause of the whole machine is left out
COALESCED_SHARE = 0.20        # of a cell's chunks
SHORT_CHARACTERS = 200        # shorter texts may arrive in one read, or have equal counts
FAILED_SHARE = 0.05           # of a cell's calls
SURVIVORS_SHARE = 1 / 3       # of a cell's calls: the others ran with fewer beside them
RELOADED_RATIO = 2.0          # of the cell's median TTFT, after a call that the server broke off
WAITING_RATIO = 2.0           # of the TTFT on one lane
FULL_CPU_RATIO = 0.9          # of all CPUs; while fewer are busy, others take nothing from a call
OTHER_CPU_SHARE = 0.25        # of the busy CPUs; a call is left out if others took more
DISTURBED_SHARE = 0.5         # of a cell's answered calls; if more are left out, it is not ranked
DIFFERENT_RATIO = 1.05        # smaller differences occur between two sessions on one machine

MIN_ENERGY_SAMPLES = 10       # fewer show little about the mean power
MAX_SAMPLE_GAP_US = 60_000_000    # between two samples of the power
MAX_EDGE_US = 10_000_000      # before the first and after the last sample of a segment
USED_CARD_RATIO = 0.10        # a card that was never as busy as this did not compute
