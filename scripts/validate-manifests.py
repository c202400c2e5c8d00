"""Checks rendered manifests against the schemas of their kinds, and that the check sees what is wrong with them.

    validate-manifests.py --resources FOLDER MANIFEST...

Kubernetes' own kinds go by the package kubernetes-validate, custom ones by the CustomResourceDefinitions in FOLDER (*.yaml).
A kind without a schema is an error, and so is a field that the schema does not know. Rules in CEL are not evaluated.
Then, for each custom resource: each of its fields is misspelt, and each of its values replaced by one of another type, and
all of that must be refused.
"""

import argparse
import copy
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# What has names of the user's choice in it.
OPEN = {"labels", "annotations", "matchLabels", "metadata"}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--resources", type=pathlib.Path, required=True)
    parser.add_argument("manifests", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    custom = custom_schemas(arguments.resources)
    problems, mutants = [], 0
    for path in arguments.manifests:
        for manifest in filter(None, yaml.safe_load_all(path.read_text())):
            kind = (manifest["apiVersion"], manifest["kind"])
            place = f"{path.name}: {kind[1]}"
            if kind not in custom:
                problems += [f"{place}: {problem}" for problem in builtin_problems(manifest)]
                continue
            validator = custom[kind]
            problems += [f"{place}: {problem}" for problem in problems_of(validator, manifest)]
            for what, mutant in mutants_of(manifest):
                mutants += 1
                if next(validator.iter_errors(mutant), None) is None:
                    problems.append(f"{place}: nobody would notice {what}")
    for problem in problems:
        print(problem)
    if mutants == 0:
        problems.append("no custom resource")
        print("no manifest holds a custom resource: they should be checked here")
    print(f"{len(arguments.manifests)} sets of manifests, {mutants} ways to get a custom resource wrong")
    return 1 if problems else 0


def builtin_problems(manifest: dict) -> list[str]:
    try:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{manifest['apiVersion']} has no schema here"]
    return []


def custom_schemas(folder: pathlib.Path) -> dict:
    schemas = {}
    for path in sorted(folder.glob("*.yaml")):
        for definition in filter(None, yaml.safe_load_all(path.read_text())):
            if definition["kind"] != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                if not version["served"]:
                    continue
                schema = closed(version["schema"]["openAPIV3Schema"])
                kind = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                schemas[kind] = jsonschema.Draft7Validator(schema)
    return schemas


def closed(schema: dict) -> dict:
    """As JSON Schema, which is open where a structural schema of Kubernetes is closed."""
    result = dict(schema)
    properties = schema.get("properties")
    if properties is not None:
        result["properties"] = {name: closed(inner) for name, inner in properties.items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        result["additionalProperties"] = closed(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        result["items"] = closed(schema["items"])
    if schema.get("nullable") and "type" in schema:
        result["type"] = [schema["type"], "null"]
    return result


def problems_of(validator, manifest: dict) -> list[str]:
    errors = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(manifest)]
    # The API server judges these by a schema that all kinds share.
    known = {"name", "namespace", "labels", "annotations"}
    return errors + [f"metadata.{name}: unknown" for name in manifest["metadata"] if name not in known]


def mutants_of(manifest: dict):
    for path in paths(manifest, ()):
        where = ".".join(map(str, path))
        if path[0] == "metadata":
            continue
        parent, last = path[:-1], path[-1]
        if isinstance(last, str) and not (parent and parent[-1] in OPEN):
            misspelt = copy.deepcopy(manifest)
            inner = at(misspelt, parent)
            inner[f"{last}Misspelt"] = inner.pop(last)
            yield f"{where} misspelt", misspelt
        other = copy.deepcopy(manifest)
        value = at(manifest, path)
        at(other, parent)[last] = {"wrong": "type"} if isinstance(value, list) else ["wrong", "type"]
        yield f"{where} of another type", other


def paths(value, path):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


sys.exit(main())
