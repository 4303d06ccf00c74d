# The documentation package: pages, the option reference generated from the modules, man pages and completions. Beside it, as
# `json`, the options in the form that searches for options read, such as search.nixos.org.
{
  lib,
  pkgs,
  # The package of our programs.
  manager,
}:
let
  evaluated = lib.evalModules {
    modules = [
      ./default.nix
      {
        # Only our declarations are read; those of NixOS are absent.
        _module.check = false;
        _module.args = { inherit pkgs; };
      }
    ];
  };
  guest = lib.evalModules {
    modules = [
      # With all that it imports.
      ../guest-configs/agent.nix
      {
        _module.check = false;
        _module.args = { inherit pkgs; };
      }
    ];
  };
  text = (import ./options-text.nix { inherit lib; }).page {
    options = evaluated.options.services.innkeeper;
    guestOptions = guest.options.innkeeper;
  };
  inherit (import ./options-text.nix { inherit lib; }) relative;
  json =
    (pkgs.nixosOptionsDoc {
      options = {
        services = { inherit (evaluated.options.services) innkeeper; };
        inherit (guest.options) innkeeper;
      };
      transformOptions = option: option // { declarations = map relative option.declarations; };
    }).optionsJSON;
  pages = lib.fileset.toSource {
    root = ../docs;
    fileset = lib.fileset.fileFilter (file: file.hasExt "md") ../docs;
  };
in
pkgs.runCommand "innkeeper-docs" { } ''
  pages=$out/share/doc/innkeeper
  mkdir -p $pages
  cp ${pages}/*.md $pages
  cp --remove-destination ${pkgs.writeText "options.md" text} $pages/options.md
  for kind in man bash-completion fish zsh; do
    [[ ! -e ${manager}/share/$kind ]] || cp -r ${manager}/share/$kind $out/share/
  done
''
// {
  inherit json text;
}
