"""The XML header of ISMRMRD, which fastMRI's files have too."""

from xml.etree import ElementTree

from fedsim.core.errors import InputError


def parsed(text: str) -> ElementTree.Element:
    """The root element of a header.

    Raises:
        InputError: it declares a document type; entities are never expanded.
        ParseError: it is no XML.
    """
    if "<!DOCTYPE" in text:
        raise InputError("its ISMRMRD header declares a document type; such a header must not")
    return ElementTree.fromstring(text)


def matrix(header: ElementTree.Element, space: str) -> tuple[int, int, int] | None:
    """matrixSize (x, y, z) of the first encoding's `space`, encodedSpace or reconSpace; None if it has none.

    Raises:
        InputError: x or y is below one.
    """
    found = header.find(f"{{*}}encoding/{{*}}{space}/{{*}}matrixSize")
    if found is None:
        return None
    x, y, z = (int(found.findtext(f"{{*}}{axis}", default)) for axis, default in (("x", "0"), ("y", "0"), ("z", "1")))
    if min(x, y) < 1:
        raise InputError(f"its ISMRMRD header's {space}/matrixSize is {(x, y)}; x and y must be at least 1")
    return x, y, z
