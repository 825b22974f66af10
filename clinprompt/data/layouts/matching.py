"""Which exam belongs to a scan: the nearest within some days, each exam once."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date


@dataclass(frozen=True)
class Matching:
    """Of one subject, by places in the lists of dates.

    Attributes:
        exam_of: scan -> exam.
        ties: how many scans had two exams equally near; the earlier was taken where it was free.
    """

    exam_of: dict[int, int]
    ties: int


def match_exams(scans: Sequence[date], exams: Sequence[date], within_days: int) -> Matching:
    """Give each scan the nearest exam; where two scans want one exam the nearer gets it, and the other the next."""
    wanted = sorted(
        (abs((scan_day - exam_day).days), exam_day, scan_day, scan, exam)
        for scan, scan_day in enumerate(scans)
        for exam, exam_day in enumerate(exams)
        if abs((scan_day - exam_day).days) <= within_days
    )
    exam_of: dict[int, int] = {}
    for _, _, _, scan, exam in wanted:
        if scan not in exam_of and exam not in exam_of.values():
            exam_of[scan] = exam
    apart = {(scan, exam): days for days, _, _, scan, exam in wanted}
    ties = sum(
        any(other != exam and apart.get((scan, other)) == apart[scan, exam] for other in range(len(exams)))
        for scan, exam in exam_of.items()
    )
    return Matching(exam_of, ties)
