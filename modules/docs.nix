# docs/options.md: every option of ours, from the modules themselves.
{ lib, pkgs }:
let
  evaluated = lib.evalModules {
    modules = [
      ./default.nix
      {
        # Only declarations are looked at, and those of NixOS are not ours.
        _module.check = false;
        _module.args = { inherit pkgs; };
      }
    ];
  };
  text = import ./options-text.nix {
    inherit lib;
    options = evaluated.options.services.innkeeper;
  };
in
pkgs.writeTextDir "options.md" text // { inherit text; }
