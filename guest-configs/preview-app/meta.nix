# The metadata that follows from the apps of a preview: the values of the contract's fields.
{ lib }:
apps:
let
  routesOf =
    { app, ... }:
    map (path: {
      inherit path;
      inherit (app)
        port
        stripPrefix
        protocol
        timeout
        healthPath
        ;
    }) app.path;
  at = prefix: builtins.filter ({ app, ... }: app.hostPrefix == prefix) apps;
  prefixes = lib.unique (
    builtins.filter (prefix: prefix != null) (map ({ app, ... }: app.hostPrefix) apps)
  );
  routes = lib.concatMap routesOf (at null);
in
{
  setupService = "preview-setup";
  appServices = lib.concatMap (entry: [ entry.unit ] ++ map (worker: worker.unit) entry.workers) apps;
  database = lib.mkIf (builtins.any ({ app, ... }: app.database == "host") apps) "host";
  hostSecrets = lib.concatMap ({ app, ... }: app.hostSecrets) apps;
  # A list without entries is left to the assertions, which name the option to change.
  routes = lib.mkIf (routes != [ ]) routes;
  extraHosts = map (prefix: {
    inherit prefix;
    routes = lib.concatMap routesOf (at prefix);
  }) prefixes;
}
