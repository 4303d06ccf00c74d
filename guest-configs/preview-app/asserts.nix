# Assertions about the apps of a preview. Each message names the option to change.
{ lib }:
apps:
let
  inherit (import ./types.nix { inherit lib; }) unitWord;

  isWord = name: builtins.match unitWord name != null;
  parts = lib.concatMap (entry: entry.workers ++ entry.schedules) apps;
  entries = apps ++ parts;

  # The groups of entries that have the same key, as lists of at least two.
  clashes =
    keyOf: all:
    builtins.filter (group: builtins.length group > 1) (
      builtins.attrValues (builtins.groupBy keyOf all)
    );
  # The options of a group: `a.port and b.port`.
  named = field: group: lib.concatMapStringsSep " and " (entry: "${entry.option}${field}") group;
  refuse = message: {
    assertion = false;
    inherit message;
  };

  paths = lib.concatMap (
    { option, app, ... }:
    map (path: {
      inherit option path;
      host = app.hostPrefix;
    }) app.path
  ) apps;

  environments = lib.concatMap (
    entry:
    [
      {
        inherit (entry) option app;
        inherit (entry.app) environment;
      }
    ]
    ++ map (part: {
      inherit (part) option;
      inherit (entry) app;
      inherit (part.value) environment;
    }) (entry.workers ++ entry.schedules)
  ) apps;
  variables = lib.concatMap (
    { option, environment, ... }:
    map (name: {
      inherit name;
      option = "${option}.environment.${name}";
    }) (builtins.attrNames environment)
  ) environments;
  hasDatabase = builtins.any ({ app, ... }: app.database == "host") apps;
  secrets = lib.concatMap ({ app, ... }: app.hostSecrets) apps;
  isReserved =
    name:
    lib.hasPrefix "PREVIEW_" name
    || (name == "DATABASE_URL" && hasDatabase)
    || builtins.elem name secrets;
in
map (
  entry:
  refuse "${entry.option}: '${entry.name}' cannot be a name. Use lower-case letters, digits and hyphens, and a letter or digit at both ends."
) (builtins.filter (entry: !isWord entry.name) entries)
++ map (
  entry:
  refuse "${entry.option}: the name 'setup' is reserved for the service that sets up a commit. Use another name."
) (builtins.filter (entry: entry.name == "setup") apps)
++ map (
  group:
  refuse "${named "" group} have the same unit ${(builtins.head group).unit}.service. Rename all but one."
) (clashes (entry: entry.unit) entries)
++ map (
  group:
  refuse "${named ".port" group} are all ${toString (builtins.head group).app.port}. Set a different port for each app."
) (clashes ({ app, ... }: toString app.port) apps)
++ map (
  group:
  refuse "${named ".path" group} contain the same path '${(builtins.head group).path}'. Set a path such as \"/api/*\" for all but one."
) (clashes ({ host, path, ... }: "${toString host} ${path}") paths)
++ map (
  { option, app, ... }:
  refuse "${option}.directory is '${app.directory}', which leaves the repository. Use a path without '..'."
) (builtins.filter ({ app, ... }: builtins.elem ".." (lib.splitString "/" app.directory)) apps)
++ lib.optional (apps != [ ] && builtins.all ({ app, ... }: app.hostPrefix != null) apps) (
  refuse "${named ".hostPrefix" apps}: no app answers at the preview's own host name. Remove hostPrefix from one app."
)
++ map (
  variable:
  refuse "${variable.option}: this is not the name of a variable. Use letters, digits and underscores, and no digit first."
) (builtins.filter ({ name, ... }: builtins.match "[A-Za-z_][A-Za-z0-9_]*" name == null) variables)
++ map (
  variable: refuse "${variable.option}: the host sets this variable. Remove it, or use another name."
) (builtins.filter ({ name, ... }: isReserved name) variables)
