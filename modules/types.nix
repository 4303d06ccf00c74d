# Types of options, for nixpkgs' `lib`.
{ lib }:
let
  innkeeperLib = import ./lib.nix;
in
{
  # The path of a secret on the host. A path in the Nix store is rejected, because every user can read the store, guests
  # included; so is a relative one. The message names the option, unlike that of `types.externalPath`.
  secretPath = lib.mkOptionType {
    name = "secretPath";
    description = "absolute path outside of the Nix store";
    descriptionClass = "noun";
    check = builtins.isString;
    merge =
      location: definitions:
      let
        path = lib.mergeEqualOption location definitions;
      in
      if lib.hasPrefix "/" path && !innkeeperLib.inStore path then
        path
      else
        throw "${lib.showOption location} is ${path}. It must be an absolute path outside of the Nix store, which every user can read, guests included. Write it as a string, for example \"/var/secrets/github\" or config.sops.secrets.<name>.path.";
  };
}
