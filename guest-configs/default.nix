# The guests that the flake builds, by the name of their output.
{ lib }:
{
  agent = ./agent.nix;
  preview = ./preview.nix;
}
// lib.mapAttrs' (
  file: _: lib.nameValuePair "preview-${lib.removeSuffix ".nix" file}" (./examples + "/${file}")
) (builtins.readDir ./examples)
