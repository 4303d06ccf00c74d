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
      [ -d ${app} ] || git clone --branch "$PREVIEW_BRANCH" -- "$PREVIEW_REPO_URL" ${app}
      cd ${app}
      git fetch origin "$PREVIEW_BRANCH"
      git reset --hard FETCH_HEAD
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
