# The preview of each pull request. `preview check` evaluates this file. docs/previews.md of Innkeeper explains it line by line
# and has complete files for other languages.
{ pkgs, ... }:
{
  innkeeper.preview.app = {
    # Programs that the commands need. Names: https://search.nixos.org/packages
    packages = [ pkgs.nodejs_22 ];
    # Commands, in bash, that prepare each commit.
    setup = ''
      npm ci
      npm run build --if-present
    '';
    # The command, in bash, that serves the app on all addresses (0.0.0.0), not only on localhost.
    run = "exec npm start";
    # The port that the app listens on, which the variable PORT contains, too.
    port = 3000;
    # A PostgreSQL database on the host, named in DATABASE_URL:
    # database = "host";
  };
}
