"""Writes the schema of the chart's values: values.yaml of this directory with the schemas of both configurations in it.

    build.py CONFIG_SCHEMA SCALER_SCHEMA OUTPUT

The schemas are those that `scalebridge schema config` and `scalebridge-scaler schema` print.
"""

import json
import pathlib
import sys

import yaml


def embed(name, path, definitions):
    """Adds a schema as the definition `name`, and its own definitions as `name.DEFINITION`."""
    schema = json.loads(pathlib.Path(path).read_text())
    for key in ("$id", "$schema", "title", "required"):  # A part of the keys is set by the chart.
        schema.pop(key, None)
    own = schema.pop("$defs", {})
    if name == "bridge":
        own["Tls"].pop("required")  # Its files too.
    for key, definition in {"": schema, **own}.items():
        definitions[f"{name}.{key}".rstrip(".")] = with_references(definition, name)


def with_references(node, name):
    """References within a schema lead to the embedded definitions. Nothing can be null, since Helm removes such keys: so
    errors do not say that null would do."""
    if isinstance(node, dict):
        moved = {key: with_references(value, name) for key, value in node.items()}
        others = [one for one in moved.get("anyOf", []) if one != {"type": "null"}]
        if len(others) == 1:
            del moved["anyOf"]
            moved = {**others[0], **moved}
        if isinstance(node.get("$ref"), str):
            moved["$ref"] = node["$ref"].replace("#/$defs/", f"#/$defs/{name}.")
        return moved
    if isinstance(node, list):
        return [with_references(value, name) for value in node]
    return node


def main():
    config, scaler, output = sys.argv[1:]
    schema = yaml.safe_load((pathlib.Path(__file__).parent / "values.yaml").read_text())
    embed("bridge", config, schema["$defs"])
    embed("scaler", scaler, schema["$defs"])
    rules = yaml.safe_load((pathlib.Path(output).parent / "files/capacity.rules.yml").read_text())
    schema["$defs"]["capacityGroups"]["items"]["enum"] = [group["name"] for group in rules["groups"]]
    pathlib.Path(output).write_text(json.dumps(schema, indent=1, ensure_ascii=False) + "\n")


main()
