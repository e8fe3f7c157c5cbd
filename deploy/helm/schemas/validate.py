"""Validates manifests strictly, and prints their objects in JSON: a list for each file.

    validate.py FILE…

Kubernetes' own objects are validated against its schemas, for the oldest version that the chart supports and the newest one
that the package has. Those of prometheus-operator are validated against the schemas in this directory. Unknown fields, keys
that a map has twice, and objects without a schema are errors.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = ("1.30", "1.37")
HERE = pathlib.Path(__file__).parent
OPERATOR = "monitoring.coreos.com/"


class Loader(yaml.SafeLoader):
    """Refuses a key that a map has twice: the last one would win."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"keys twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


# kubectl writes the matcher `=` without quotes, which YAML 1.1 has another meaning for. Kubernetes reads it as a text.
Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


def errors(item):
    """What is wrong with one object."""
    if item["apiVersion"].startswith(OPERATOR):
        path = HERE / f"{item['kind'].lower()}.yaml"
        validator = jsonschema.Draft202012Validator(yaml.safe_load(path.read_text()))
        for error in validator.iter_errors(item):
            yield f"{error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except Exception as error:  # For example no schema for this kind.
            yield f"Kubernetes {version}: {error!r}"


def main():
    files, faults = {}, []
    for name in sys.argv[1:]:
        items = files[pathlib.Path(name).stem] = []
        for item in yaml.load_all(pathlib.Path(name).read_text(), Loader):
            if item is None:
                continue
            items.append(item)
            what = f"{name}: {item.get('kind')} {item.get('metadata', {}).get('name')}"
            faults += [f"{what}: {fault}" for fault in errors(item)]
    print(json.dumps(files))
    if faults:
        sys.exit("\n".join(faults))


main()
