# The TOML file of daemon, webhook, gateway, state pages and resolver. The build fails if one of the programs would reject it.
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
    ${package}/bin/innkeeper-pages --check-config --config ${file} > /dev/null
    ${package}/bin/innkeeper-dns --check-config --config ${file} > /dev/null
    ${lib.optionalString (settings ? gateway) ''
      # The build has no file of tokens.
      INNKEEPER_GATEWAY_TOKENS_FILE= ${package}/bin/innkeeper-gateway --check-config --config ${file} > /dev/null
    ''}
    ${lib.optionalString (settings ? webhook) ''
      # It also reads the secrets, which the build does not have.
      mkdir credentials
      echo none > credentials/webhook-secret
      CREDENTIALS_DIRECTORY=$PWD/credentials ${package}/bin/innkeeper-webhook --check-config --config ${file} > /dev/null
    ''}
    cp ${file} $out
  ''
else
  # Programs for another platform cannot run here; the daemon rejects an invalid file when it starts.
  file
