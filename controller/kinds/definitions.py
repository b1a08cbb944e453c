"""The models as Kubernetes' CustomResourceDefinitions, so that an API server refuses by itself what has a wrong type.

An API server drops fields that a definition does not name. What we refuse by name must reach us, and so is named there
as something of any form. What only our own checks can judge (a regular expression, fields that exclude each other) is
judged when it is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.kinds.catalogue import CATALOGUE
from controller.kinds.meta import KubernetesObject

Schema = dict[str, Any]

# Kubernetes' own kinds come with it.
_BUILT_IN = ("", "discovery.k8s.io")
# What OpenAPI v3's structural form has of what pydantic says (Kubernetes, "Specifying a structural schema").
_KEPT = (
    "type",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "description",
    "format",
)
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
# Groups of *.k8s.io are Kubernetes' to approve; this is how others say that they are not asking.
_APPROVAL = "unapproved, from what Ambit reads of these kinds"


def list_models() -> list[type[KubernetesObject]]:
    """The kinds that need a definition, by group and name."""
    models = {model for model in CATALOGUE.values() if model.GROUP not in _BUILT_IN}
    return sorted(models, key=lambda model: (model.GROUP, model.KIND))


def name_plural(kind: str) -> str:
    """How the API's paths name a kind."""
    word = kind.lower()
    if word.endswith("y") and word[-2] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith("s") else f"{word}s"


def build_definition(model: type[KubernetesObject]) -> Schema:
    """A kind's CustomResourceDefinition. All versions have one schema; the first is the one that is stored."""
    kind, plural = model.KIND, name_plural(model.KIND)
    metadata: Schema = {"name": f"{plural}.{model.GROUP}"}
    if model.GROUP.endswith(".k8s.io"):
        metadata["annotations"] = {"api-approved.kubernetes.io": _APPROVAL}
    schema = _build_schema(model)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": model.GROUP,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced" if model.IS_NAMESPACED else "Cluster",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == model.VERSIONS[0],
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": schema},
                }
                for version in model.VERSIONS
            ],
        },
    }


def _build_schema(model: type[KubernetesObject]) -> Schema:
    given = model.model_json_schema(by_alias=True)
    schema = _Converter(given.get("$defs", {})).convert(given)
    properties = schema["properties"]
    properties["apiVersion"], properties["kind"] = {"type": "string"}, {"type": "string"}
    properties["metadata"] = {"type": "object"}
    properties["status"] = {"type": "object", **_ANYTHING}
    schema["required"] = [name for name in schema.get("required", ()) if name == "spec"]
    return {name: value for name, value in schema.items() if value != []}


class _Converter:
    """From JSON Schema to the structural form: no references, no choices, no defaults."""

    def __init__(self, definitions: Mapping[str, Schema]) -> None:
        self._definitions = definitions

    def convert(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            return self.convert(self._definitions[schema["$ref"].rpartition("/")[2]])
        if "anyOf" in schema:
            return self._convert_choice(schema["anyOf"])
        if schema.get("type") == "null" or not _says_anything(schema):
            return dict(_ANYTHING)
        built = {name: schema[name] for name in _KEPT if name in schema}
        if "const" in schema:
            built["enum"] = [schema["const"]]
        if "exclusiveMinimum" in schema:
            built |= {"minimum": schema["exclusiveMinimum"], "exclusiveMinimum": True}
        if "enum" in built:
            built["type"] = "string" if isinstance(built["enum"][0], str) else "integer"
        if schema.get("type") == "array":
            built["items"] = self.convert(schema["items"])
        if schema.get("type") == "object":
            built |= self._convert_object(schema)
        return built

    def _convert_object(self, schema: Schema) -> Schema:
        built: Schema = {}
        if "properties" in schema:
            built["properties"] = {name: self.convert(each) for name, each in sorted(schema["properties"].items())}
        elif isinstance(schema.get("additionalProperties"), dict):
            built["additionalProperties"] = self.convert(schema["additionalProperties"])
        if schema.get("required"):
            built["required"] = sorted(schema["required"])
        return built

    def _convert_choice(self, choices: Sequence[Schema]) -> Schema:
        """What may be absent is a choice with null; a number of either kind is a number."""
        real = [each for each in choices if each.get("type") != "null"]
        if len(real) == 1:
            return self.convert(real[0])
        types = {each.get("type") for each in real}
        if types == {"integer", "number"}:
            [number] = (each for each in real if each.get("type") == "number")
            return self.convert(number)
        if types == {"string"}:
            return {"type": "string"}
        raise ValueError(f"no structural form for a choice of {sorted(map(str, types))}")


def _says_anything(schema: Schema) -> bool:
    return bool(schema.keys() - {"title", "default", "description"})


def list_definitions() -> Iterator[tuple[str, Schema]]:
    """Every definition, with the name of its file."""
    for model in list_models():
        yield f"{model.GROUP}_{name_plural(model.KIND)}.yaml", build_definition(model)
