"""Sections that a workload may give by their name alone, such as a sampler or a tracker."""

from pydantic import BeforeValidator, GetJsonSchemaHandler, SerializerFunctionWrapHandler, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from fedsim.core.extension import Extension


class Named(Extension):
    """The base of these sections."""

    name: str

    @model_serializer(mode="wrap")
    def _by_name(self, keys: SerializerFunctionWrapHandler) -> object:
        """The name alone, where there are no other keys."""
        written = keys(self)
        return self.name if written.keys() == {"name"} else written


class _OrName:
    """Describes to editors a section that may be its name alone."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, known: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, known(schema)]}


OR_NAME = (BeforeValidator(lambda given: {"name": given} if isinstance(given, str) else given), _OrName())
"""Annotations of a field that takes a name, or a section with further keys."""
