# The preview of tests/nixos/previews.nix, as a repository would write it: a page from Git, and a row in a database.
{ pkgs, ... }:
let
  app = "/home/preview/app";
  common = {
    serviceConfig = {
      User = "preview";
      EnvironmentFile = "/etc/preview.env";
    };
  };
in
{
  system.build.previewMeta = {
    setupService = "preview-setup";
    appServices = [ "preview-app" ];
    database = "host";
    routes = [
      {
        path = "/";
        port = 3000;
      }
    ];
  };
  users.users.preview = {
    isNormalUser = true;
    uid = 1000;
  };
  systemd.services.preview-setup = common // {
    path = [
      pkgs.git
      pkgs.postgresql
    ];
    serviceConfig = common.serviceConfig // {
      Type = "oneshot";
      RemainAfterExit = true;
    };
    script = ''
      [ -d ${app} ] || git init ${app}
      cd ${app}
      # That commit and no other: the branch may have moved since. A server that gives no commit by its hash gives it
      # with the branch.
      git cat-file -e "$PREVIEW_COMMIT^{commit}" ||
        git fetch "$PREVIEW_REPO_URL" "$PREVIEW_COMMIT" ||
        git fetch "$PREVIEW_REPO_URL" "$PREVIEW_BRANCH"
      git reset --hard "$PREVIEW_COMMIT"
      psql "$DATABASE_URL" --command 'create table if not exists visits (at timestamptz default now()); insert into visits default values'
    '';
  };
  systemd.services.preview-app = common // {
    serviceConfig = common.serviceConfig // {
      WorkingDirectory = app;
      ExecStart = "${pkgs.python3}/bin/python3 -m http.server 3000";
    };
  };
}
