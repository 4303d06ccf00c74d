# The daemon's TOML, refused at build time when the daemon would refuse it.
{
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
    cp ${file} $out
  ''
else
  # A program for another machine cannot be asked; the daemon itself refuses a wrong file when it starts.
  file
