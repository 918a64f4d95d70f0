"""JSON Schemas of the files, as text: they describe what is written."""

from __future__ import annotations

import json

from pydantic.json_schema import GenerateJsonSchema

from utils.schema.common import Record

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _WithoutFieldTitles(GenerateJsonSchema):
    """Leaves out titles that only repeat the names of the fields."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def schema_text(file_name: str, record: type[Record]) -> str:
    """The JSON Schema of a file that holds this record, ending in a line break."""
    schema = record.model_json_schema(mode="serialization", schema_generator=_WithoutFieldTitles)
    schema = {"$schema": DIALECT, **schema, "title": file_name}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
