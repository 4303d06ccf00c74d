# The TOML of daemon and webhook, refused at build time when they would refuse it.
{
  lib,
  pkgs,
  package,
  settings,
}:
let
  file = (pkgs.formats.toml { }).generate "innkeeper-config.toml" settings;
  runsHere = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
in
if runsHere then
  pkgs.runCommand "innkeeper-config-checked.toml" { } ''
    ${package}/bin/innkeeperd --check-config --config ${file} > /dev/null
    ${lib.optionalString (settings ? webhook) ''
      # It asks for the secrets too, and those are not here.
      mkdir credentials
      echo none > credentials/webhook-secret
      CREDENTIALS_DIRECTORY=$PWD/credentials ${package}/bin/innkeeper-webhook --check-config --config ${file} > /dev/null
    ''}
    cp ${file} $out
  ''
else
  # A program for another machine cannot be asked; the daemon itself refuses a wrong file when it starts.
  file
