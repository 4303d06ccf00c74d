# Composes a preview from the host's nixpkgs, the base module, and a repository's configuration.
#
# A pure evaluation reads a path only by its hash. All three are in the evaluator's store already, under the
# path that follows from the hash, so that nothing is copied.
{
  # Each is { name, path, hash }, with the hash of its NAR.
  nixpkgs,
  base,
  # Code from strangers: the files of the repository that its configuration refers to.
  preview,
  # The main file in `preview`, such as `preview-config.nix`.
  main,
  # The base module's file in `base`.
  entry,
  # Such as `x86_64-linux`.
  system,
}:
let
  locked =
    {
      name,
      path,
      hash,
    }:
    builtins.path {
      inherit name path;
      sha256 = hash;
    };

  # `lib.nixosSystem` is an output of nixpkgs' flake and is not in its `lib`.
  flake = (import (locked nixpkgs + "/flake.nix")).outputs {
    self = flake // {
      outPath = locked nixpkgs;
    };
  };

  inherit
    (flake.lib.nixosSystem {
      modules = [
        (locked base + "/${entry}")
        { nixpkgs.hostPlatform = flake.lib.mkDefault system; }
        (locked preview + "/${main}")
      ];
    })
    config
    ;

  inherit (config.system.build) toplevel;
  meta =
    config.system.build.previewMeta or (throw ''
      ${main} does not say what the preview is: set system.build.previewMeta.
      An attribute set, or a file with JSON made by pkgs.writeText.'');

  plain = builtins.unsafeDiscardStringContext;
  # A file is not there before it is built or copied: what it takes goes with its path.
  file = path: {
    path = plain path;
    needs = builtins.attrNames (builtins.getContext path);
  };
in
{
  toplevel = {
    derivation = plain toplevel.drvPath;
    out = plain toplevel.outPath;
  };
  # The system first: its assertions explain more than an option without a value does.
  meta = builtins.seq toplevel.drvPath (
    if builtins.isAttrs meta && !(meta ? outPath) then
      { json = plain (builtins.toJSON meta); }
    else if builtins.isAttrs meta || builtins.isPath meta || builtins.isString meta then
      file "${meta}"
    else
      throw "system.build.previewMeta is a ${builtins.typeOf meta}: give an attribute set, or a file with JSON made by pkgs.writeText."
  );
}
