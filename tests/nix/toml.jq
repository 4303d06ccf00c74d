# Settings as TOML: strings, numbers and lists of JSON are TOML as well.
[paths(type != "object")] as $all
| $all[] as $path
| select(($path | map(type) | all(. == "string")))
| "\($path | map(tojson) | join(".")) = \(getpath($path) | tojson)"
