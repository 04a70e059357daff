"""Identifying the person scanned, from anything that names one: never from folders of visits, repetitions or contrasts.

Everything here is a function of names alone. If names are ambiguous, people are merged rather than separated: a site
may then have too few subjects, but no subject is in both training and test.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

import re2
from pydantic import Field, field_validator

from fedsim.core.errors import InputError
from fedsim.core.section import Section, Text
from fedsim.data.names import stem

T = TypeVar("T")

SITE = "the whole site"
"""How a subject is identified that stands for its whole site, because nothing names a person."""


@dataclass(frozen=True)
class Subject:
    """A person, or another unit that must never be divided."""

    name: str
    """Name, safe as part of a file name; equal names at several sites are one person."""
    told: str
    """What identified the person: BIDS, a collection, PatientID, the folder, ..."""
    original: str = field(compare=False)
    """The text that the name was made from."""

    @classmethod
    def of(cls, text: str, told: str, original: str = "") -> Self:
        """The subject that `text` names.

        Raises:
            InputError: the text is empty.
        """
        return cls(unique_name(text), told, original or text)


def connected(groups: Iterable[Iterable[T]]) -> list[list[T]]:
    """Merges groups that share a member, each in order of appearance."""
    joined: dict[T, list[T]] = {}
    for group in groups:
        members = list(group)
        others = {id(joined[one]): joined[one] for one in members if one in joined}
        together = list(dict.fromkeys(one for many in (*others.values(), members) for one in many))
        joined.update(dict.fromkeys(together, together))
    return list({id(many): many for many in joined.values()}.values())


def unique_name(text: str) -> str:
    """`text` if it is a safe name; otherwise its safe characters and a digest, so that no two texts give the same name.

    Raises:
        InputError: the text is empty.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", text):
        return text
    if not text:
        raise InputError("a subject needs a non-empty name")
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", letters).strip("-")[:80] or "subject"
    return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class SubjectPattern(Section):
    """A regular expression that finds the subject in a file's path."""

    pattern: Text = Field(
        max_length=500,
        description="Regular expression (RE2) searched for in the path below `path`; its only group is the subject.",
    )

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        groups = _compiled(pattern).groups
        if groups != 1:
            raise ValueError(f"{pattern!r} has {groups} groups; put just one pair of parentheses, around the subject")
        return pattern

    def subject(self, path: str) -> Subject:
        """The subject that a path names.

        Raises:
            InputError: nothing identifies a subject.
        """
        found = _compiled(self.pattern).search(unicodedata.normalize("NFC", path))
        if found is None or not found[1]:
            raise InputError(f"does not match subject.pattern {self.pattern!r}; write one that finds the subject in it")
        return Subject.of(found[1], "subject.pattern", path)


def _compiled(pattern: str) -> "re2._Regexp[str]":
    """A pattern compiled by RE2, which takes linear time for every pattern.

    Raises:
        ValueError: it is not a regular expression.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(unicodedata.normalize("NFC", pattern), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        raise ValueError(f"{pattern!r} is not a regular expression for RE2 ({reason})") from error


_BIDS = re.compile(r"(?i)(sub-[^_]+)(?=_|$)")
_COLLECTIONS = {
    "IXI number": r"(IXI\d+)",
    "TCGA patient": r"(TCGA[-_][A-Z0-9]{2}[-_][A-Z0-9]{4})",
    "BraTS case": r"(BraTS(?:-[A-Z]+)+-\d+)(?:-\d+)?",
    "BraTS 2020 case": r"(BraTS20_[A-Z]+_\d+)",
    "BraTS 2021 case": r"(BraTS20\d\d_\d+)",
    "BraTS 2017 case": r"(BraTS1[789]_[A-Z0-9]+_[A-Z0-9]+)_\d+",
    "OASIS number": r"(OAS[12]_\d{4}|OAS[34]\d{4})",
    "UCSF-PDGM number": r"(UCSF-PDGM-\d+)",
    "UPENN-GBM number": r"(UPENN-GBM-\d+)",
    "ADNI number": r"(\d{3}_S_\d{4,5})",
    "M4Raw number": r"(\d{10})_(?:T1|T2|FLAIR)\d\d",
    "Calgary-Campinas exam": r"(E\d{4,6})S\d+_P\d+",
    "SKM-TEA scan": r"(MTR_\d{3})",
    "Medical Segmentation Decathlon case": r"images(?:Tr|Ts)/"
    r"((?:BRATS|la|prostate|hippocampus|liver|lung|pancreas|hepaticvessel|spleen|colon)_\d{2,3})",
}
_KNOWN = {told: re.compile(rf"(?i)(?<![A-Z0-9]){text}(?![A-Z0-9])") for told, text in _COLLECTIONS.items()}
_PERSON = re.compile(
    r"(?i)((?:patient|subject|subj|sub|participant|volunteer|proband)[-_ ]?(?:id[-_ ]?)?[a-z]?\d+[a-z]?)(?![A-Za-z0-9])"
)
"""A word for a person with a number."""

_VISIT = (
    r"(?:(?:ses|session|visit|timepoint|week|month|year|follow[-_]?up|baseline|screening|(?:re)?scan|(?:re)?test|exam|day|wave|series|run|rep"
    r"|repetition|repeat|echo|slice|magnitude|mag|phase|acq|acquisition"
    r"|(?:pre|post|intra)[-_]?(?:op|surgery|treatment|therapy|tx|rt|contrast|gd)?)(?:[-_. ]?\d+)*[a-z]?"
    r"|(?:vis|tp|wk|mo|yr|fu|bl|avg|average|nex|nsa|part|ph|station|slab|mr|dyn|dir)[-_]?\d+[a-z]?)"
)
_CONTRAST = (
    r"(?:(?:ax|sag|cor|tra)?_?(?:t1|t2|pd)(?:w|n|c|ce|gd|fs|f|pre|post|map|star|rho|\d\d)?|(?:ax)?flair\d*|dwi|adc|swi|mra"
    r"|asl|bold|dti|tof|mprage|mp2rage|cine|lge|dess|gre|fse|tse|stir|ax|axial|sag|sagittal|cor|coronal|tra"
    r"|anat|func|fmap|perf|brain)"
)
_COILS = r"\d+[-_]?(?:coils?|channels?|ch)"
_DATE = (
    r"(?:(?:19|20)\d\d(?:[01]\d[0-3]\d|[-._]\d\d[-._]\d\d)|\d\d?[-._]\d\d?[-._](?:19|20)\d\d"
    r"|\d{0,2}[-._]?(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[-._]?(?:19|20)\d\d)"
)
_SIDE = r"(?:left|right)(?:[-_ ]?(?:knee|hip|breast|shoulder|hand|foot|hemisphere))?"
_BESIDE = r"[vmwdyet]\d{1,4}"
"""Words that mean a visit or an echo next to a name, but may be a name when they stand alone."""
_HOLDER = (
    r"(?:train|training|val|valid|validation|test|testing|set|trainingset|images?|images(?:tr|ts|val)|imgs?|data|dataset"
    r"|raw|rawdata|nifti|nii|dicom|dcm|hgg|lgg|mri?|scans?|study|studies|patients|subjects|cases|all)"
)
_NUMBERED = re.compile(r"(?i)(\d{2,})(?:[-_.]\d|[ab])")
"""A person's number followed by that of a visit, such as 101-2 or 101b."""
_EDGE = r"(?<![^-_. ])", r"(?![^-_. ])"
_NOT_WHO = re.compile(rf"(?i){_EDGE[0]}(?:{_VISIT}|{_CONTRAST}|{_COILS}|{_DATE}|{_SIDE}){_EDGE[1]}")
_PERHAPS_NOT = re.compile(rf"(?i){_EDGE[0]}{_BESIDE}{_EDGE[1]}")
_NOBODY = re.compile(rf"(?i)(?:{_HOLDER}|[vt]\d|[-_. ]+)*")


def told_by(
    folders: Sequence[str], name: str, site: str, recorded: str = "", record: str = "", alone: str = ""
) -> Subject:
    """The person that a file shows.

    Args:
        folders: Folders between the site's folder and the file, outermost first.
        name: The file's name without its suffix.
        site: Name of the site's folder.
        recorded: The person according to the file itself; empty if it does not say.
        record: The name of the format's field for that.
        alone: The person according to the file's name, used if no folder names one; empty if that would be everybody.
    """
    inside = [*folders, "/".join([*folders[-1:], name])]
    known = _bids([*reversed(folders), name]) or _collected(inside) or _collected([recorded])
    if known is not None:
        return known
    if recorded:
        return Subject.of(without_visit(recorded) or recorded, record, recorded)
    return _placed(folders, site) or _by_itself(name, alone) or Subject.of(site, SITE)


def by_file(name: str) -> Subject:
    """The person according to a file's name, without suffix and words for visits and contrasts."""
    known = _bids([name]) or _collected([name])
    return Subject.of(known.name if known else without_visit(name) or name, "subject: file", name)


def _placed(folders: Sequence[str], site: str) -> Subject | None:
    """The person according to a folder: one named like a person, a site's folder that is one, or the top candidate."""
    for folder in folders:
        if person := _PERSON.match(folder):
            return Subject.of(person[1], "the folder's number", folder)
    if known := _collected([site]) or (_bids([site]) if re.search(r"\d", site) else None):
        return known
    tops = ((without_visit(folder), folder) for folder in folders)
    return next((Subject.of(person, "the folder", folder) for person, folder in tops if person), None)


def _by_itself(name: str, alone: str) -> Subject | None:
    if person := _PERSON.match(name):
        return Subject.of(person[1], "the file's number", name)
    return Subject.of(alone, "the file's name", name) if alone else None


def _bids(places: Iterable[str]) -> Subject | None:
    found = next(filter(None, map(_BIDS.match, places)), None)
    return Subject.of(found[1], "BIDS sub-") if found else None


def _collected(places: Iterable[str]) -> Subject | None:
    for place in places:
        for told, pattern in _KNOWN.items():
            if found := pattern.search(place):
                person = found[1].replace("-", "_") if told.startswith("TCGA") else found[1]
                return Subject.of(person, told, place)
    return None


def without_visit(name: str) -> str:
    """`name` without words for visits, repetitions, contrasts, sides and dates; empty if nothing is left."""
    if numbered := _NUMBERED.fullmatch(name):
        return numbered[1]
    less = _without(_NOT_WHO, name)
    rest = _without(_PERHAPS_NOT, less) or less
    return "" if _NOBODY.fullmatch(rest) else rest


def _without(words: re.Pattern[str], name: str) -> str:
    less = words.sub("", name)
    return name if less == name else re.sub(r"([-_. ])[-_. ]+", r"\1", less).strip("-_. ")


def apart(files: Iterable[Path]) -> Mapping[Path, str]:
    """The person according to each file's name, for formats with one scan per file.

    If the names in a folder have two parts that vary, such as anna_1 and anna_2 beside bert_1, the first part is the
    person.
    """
    folders: dict[Path, dict[Path, str]] = {}
    for file in files:
        name = stem(file)
        folders.setdefault(file.parent, {})[file] = without_visit(name) or name
    return {file: name for names in folders.values() for file, name in _first_that_varies(names).items()}


def _first_that_varies(names: Mapping[Path, str]) -> Mapping[Path, str]:
    split = {file: re.findall(r"[^-_. ]+|[-_. ]+", name) for file, name in names.items()}
    depth = 0
    while all(len(parts) > depth for parts in split.values()) and len({p[depth] for p in split.values()}) == 1:
        depth += 1
    first = {file: "".join(parts[: depth + 1]) for file, parts in split.items()}
    return first if 1 < len(set(first.values())) < len(set(names.values())) else names
