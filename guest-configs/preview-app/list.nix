# The apps of a preview as a list, with the names of their units and the paths of their options.
#
#   { name, option, unit, app, workers, schedules }     workers and schedules: { name, option, unit, value }
{ lib }:
preview:
let
  options = "innkeeper.preview";
  parts =
    unit: option: values:
    lib.mapAttrsToList (name: value: {
      inherit name value;
      option = "${option}.${name}";
      unit = "${unit}-${name}";
    }) values;
  entry =
    option: name: app:
    let
      unit = "preview-${name}";
    in
    {
      inherit
        name
        option
        unit
        app
        ;
      workers = parts unit "${option}.workers" app.workers;
      schedules = parts unit "${option}.schedules" app.schedules;
    };
in
lib.optional (preview.app != null) (entry "${options}.app" "app" preview.app)
++ lib.mapAttrsToList (name: entry "${options}.apps.${name}" name) preview.apps
