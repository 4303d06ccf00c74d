# A preview in a few lines: the user, the unit that fetches the code, the unit that runs it.
#
#   innkeeper.lib.mkPreview {
#     packages = pkgs: [ pkgs.nodejs pkgs.git ];
#     setup = "npm ci && npm run build";
#     run = "npm start";
#     port = 3000;
#   }
#
# gives a NixOS module. `setup` and `run` are bash, run as the user `preview` in /home/preview/app.
{
  packages ? (_: [ ]),
  setup ? "true",
  run,
  port,
  database ? "container",
  environment ? { },
  hostSecrets ? [ ],
}:
{ lib, pkgs, ... }:
let
  path = [
    pkgs.bash
    pkgs.git
  ]
  ++ packages pkgs;
  common = {
    inherit path;
    environment = {
      HOME = "/home/preview";
      PORT = toString port;
    }
    // environment;
    serviceConfig = {
      User = "preview";
      Group = "users";
      # Written by the daemon; a guest that is tried by hand has none.
      EnvironmentFile = "-/etc/preview.env";
    };
  };
in
{
  imports = [ ./base.nix ];

  innkeeper.preview = {
    setupService = "preview-setup";
    appServices = [ "preview-app" ];
    routes = [
      {
        path = "/";
        inherit port;
      }
    ];
    inherit database hostSecrets;
  };

  users.users.preview = {
    isNormalUser = true;
    uid = 1000;
  };

  # Not wanted by anything: the daemon starts them, in this order, at creation and at each update.
  systemd.services.preview-setup = lib.recursiveUpdate common {
    description = "The preview's code, prepared";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      TimeoutStartSec = "20min";
    };
    script = ''
      set -euo pipefail
      cd "$HOME"
      # Git reads the token when it needs it, so that it is in no argument and in no file of the checkout.
      git config --global credential.helper '!f() { echo username=x-access-token; echo "password=$(cat /etc/preview-token)"; }; f'
      [ -d app/.git ] || git init --quiet app
      cd app
      git config remote.origin.url "$PREVIEW_REPO_URL"
      # That commit and no other: the branch may have moved since, and a fork's commits are approved one by one. It is here
      # already after a restart. A server that gives no commit by its hash gives it with the branch.
      wanted=''${PREVIEW_COMMIT:-}
      if [ -z "$wanted" ] ||
        ! { git cat-file -e "$wanted^{commit}" 2> /dev/null || git fetch --quiet origin "$wanted"; }; then
        git fetch --quiet origin "$PREVIEW_BRANCH"
      fi
      git reset --quiet --hard "''${wanted:-FETCH_HEAD}"
      ${setup}
    '';
  };
  systemd.services.preview-app = lib.recursiveUpdate common {
    description = "The preview's app";
    after = [ "preview-setup.service" ];
    serviceConfig = {
      WorkingDirectory = "/home/preview/app";
      Restart = "always";
      RestartSec = 2;
    };
    script = run;
  };
}
