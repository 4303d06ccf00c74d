# The documentation package: pages, the option reference generated from the modules, man pages and completions.
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
      ../guest-configs/preview-meta.nix
      {
        _module.check = false;
        _module.args = { inherit pkgs; };
      }
    ];
  };
  text = import ./options-text.nix {
    inherit lib;
    options = evaluated.options.services.innkeeper;
    guestOptions = guest.options.innkeeper;
  };
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
  inherit text;
}
