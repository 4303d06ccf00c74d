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
      # Written by the manager; a guest that is tried by hand has none.
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

  # Not wanted by anything: the manager starts them, in this order, at creation and at each update.
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
      # The token is read by git when it asks, so that it is in no argument and in no file of the checkout.
      git config --global credential.helper '!f() { echo username=x-access-token; echo "password=$(cat /etc/preview-token)"; }; f'
      if [ ! -d app/.git ]; then
        git clone --branch "$PREVIEW_BRANCH" --single-branch -- "$PREVIEW_REPO_URL" app
      fi
      cd app
      git fetch --quiet origin "$PREVIEW_BRANCH"
      git reset --quiet --hard FETCH_HEAD
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
