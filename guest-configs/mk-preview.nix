# A preview's module in a few lines, for flakes. A repository sets `innkeeper.preview.app` itself: docs/previews.md.
#
#   innkeeper.lib.mkPreview {
#     packages = pkgs: [ pkgs.nodejs pkgs.git ];
#     setup = "npm ci && npm run build";
#     run = "npm start";
#     port = 3000;
#   }
#
# `setup` and `run` are bash, run as the user `preview` in /home/preview/app.
{
  packages ? (_: [ ]),
  setup ? "",
  run,
  port,
  database ? "container",
  environment ? { },
  hostSecrets ? [ ],
}:
{ pkgs, ... }:
{
  imports = [ ./base.nix ];

  innkeeper.preview.app = {
    packages = packages pkgs;
    inherit
      setup
      run
      port
      database
      environment
      hostSecrets
      ;
  };
}
