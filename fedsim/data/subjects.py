"""Who was scanned, told from what names a person: never from the folder of a visit, a repetition or a contrast.

Everything here is a function of names alone. Where names leave it open who is who, people are merged rather than
divided: a site may then have too few subjects, but no subject is in both training and test.
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
"""Identifies a subject that stands for its whole site, when nothing names a person."""


@dataclass(frozen=True)
class Subject:
    """A person, or whatever else must never be divided."""

    name: str
    """Safe as part of a file name; equal names at several sites are one person."""
    told: str
    """What the name was taken from."""
    original: str = field(compare=False)
    """The text that it was taken from."""

    @classmethod
    def of(cls, text: str, told: str, original: str = "") -> Self:
        """The subject that `text` names.

        Raises:
            InputError: the text is empty.
        """
        return cls(unique_name(text), told, original or text)


def connected(groups: Iterable[Iterable[T]]) -> list[list[T]]:
    """Groups with a member in common made one, each in order of appearance."""
    joined: dict[T, list[T]] = {}
    for group in groups:
        members = list(group)
        others = {id(joined[one]): joined[one] for one in members if one in joined}
        together = list(dict.fromkeys(one for many in (*others.values(), members) for one in many))
        joined.update(dict.fromkeys(together, together))
    return list({id(many): many for many in joined.values()}.values())


def unique_name(text: str) -> str:
    """`text` if it is a safe name; otherwise its safe characters and a digest, so that no two texts make one name.

    Raises:
        InputError: the text is empty.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}", text):
        return text
    if not text:
        raise InputError("a subject needs a name that is not empty")
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = re.sub(r"[^A-Za-z0-9_]+", "-", letters).strip("-")[:80] or "subject"
    return f"{safe}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class SubjectPattern(Section):
    """A regular expression that finds the subject in a file's path."""

    pattern: Text = Field(
        max_length=500,
        description="Regular expression (RE2) searched for in the path below `path`; its one group is the subject.",
    )

    @field_validator("pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        groups = _compiled(pattern).groups
        if groups != 1:
            raise ValueError(f"{pattern!r} has {groups} groups; put parentheses around what names the subject, once")
        return pattern

    def subject(self, path: str) -> Subject:
        """Who is named by a path.

        Raises:
            InputError: nothing identifies a subject.
        """
        found = _compiled(self.pattern).search(unicodedata.normalize("NFC", path))
        if found is None or not found[1]:
            raise InputError(f"does not match subject.pattern {self.pattern!r}; write one that finds the subject in it")
        return Subject.of(found[1], "subject.pattern", path)


def _compiled(pattern: str) -> "re2._Regexp[str]":
    """RE2 takes time in proportion to the text, whatever the pattern.

    Raises:
        ValueError: it is no regular expression.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(unicodedata.normalize("NFC", pattern), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        raise ValueError(f"{pattern!r} is no regular expression that RE2 reads ({reason})") from error


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
_DATE = (
    r"(?:(?:19|20)\d\d(?:[01]\d[0-3]\d|[-._]\d\d[-._]\d\d)|\d\d?[-._]\d\d?[-._](?:19|20)\d\d"
    r"|\d{0,2}[-._]?(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)[-._]?(?:19|20)\d\d)"
)
_SIDE = r"(?:left|right)(?:[-_ ]?(?:knee|hip|breast|shoulder|hand|foot|hemisphere))?"
_BESIDE = r"[vmwdyet]\d{1,4}"
"""Words that mean a visit or an echo beside a name, and may be a name where they stand alone."""
_HOLDER = (
    r"(?:train|training|val|valid|validation|test|testing|set|trainingset|images?|images(?:tr|ts|val)|imgs?|data|dataset"
    r"|raw|rawdata|nifti|nii|dicom|dcm|hgg|lgg|mri?|scans?|study|studies|patients|subjects|cases|all)"
)
_NUMBERED = re.compile(r"(?i)(\d{2,})(?:[-_.]\d|[ab])")
"""A person's number with that of a visit, such as 101-2 or 101b."""
_EDGE = r"(?<![^-_. ])", r"(?![^-_. ])"
_NOT_WHO = re.compile(rf"(?i){_EDGE[0]}(?:{_VISIT}|{_CONTRAST}|{_DATE}|{_SIDE}){_EDGE[1]}")
_PERHAPS_NOT = re.compile(rf"(?i){_EDGE[0]}{_BESIDE}{_EDGE[1]}")
_NOBODY = re.compile(rf"(?i)(?:{_HOLDER}|[vt]\d|[-_. ]+)*")


def told_by(
    folders: Sequence[str], name: str, site: str, recorded: str = "", record: str = "", alone: str = ""
) -> Subject:
    """Who a file shows.

    Args:
        folders: Folders between the site's folder and the file, outermost first.
        name: The file's name without its ending.
        site: Name of the site's folder.
        recorded: What the file itself says about who it is; empty where it says nothing.
        record: What the format calls that.
        alone: Who it is by the name of the file if no folder tells; empty where that would be everybody of the site.
    """
    inside = [*folders, "/".join([*folders[-1:], name])]
    known = _bids([*reversed(folders), name]) or _collected(inside) or _collected([recorded])
    if known is not None:
        return known
    if recorded:
        return Subject.of(without_visit(recorded) or recorded, record, recorded)
    return _placed(folders, site) or _by_itself(name, alone) or Subject.of(site, SITE)


def by_file(name: str) -> Subject:
    """Who a file shows by its name alone, without its ending and words for visits and contrasts."""
    known = _bids([name]) or _collected([name])
    return Subject.of(known.name if known else without_visit(name) or name, "subject: file", name)


def _placed(folders: Sequence[str], site: str) -> Subject | None:
    """By a folder whose name is a person's, a site's folder that is one person's, or the top folder that may be."""
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
    """`name` without words for visits, repetitions, contrasts, sides and dates; empty if nothing in it is a person."""
    if numbered := _NUMBERED.fullmatch(name):
        return numbered[1]
    less = _without(_NOT_WHO, name)
    rest = _without(_PERHAPS_NOT, less) or less
    return "" if _NOBODY.fullmatch(rest) else rest


def _without(words: re.Pattern[str], name: str) -> str:
    less = words.sub("", name)
    return name if less == name else re.sub(r"([-_. ])[-_. ]+", r"\1", less).strip("-_. ")


def apart(files: Iterable[Path]) -> Mapping[Path, str]:
    """Who each file is by its own name, for formats whose files are whole scans.

    Files of a folder whose names have two parts that vary, such as anna_1 and anna_2 beside bert_1, are distinguished
    by the first.
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
