# All modules of the host.
{
  imports = builtins.attrValues (removeAttrs (import ./list.nix) [ "default" ]);
}
