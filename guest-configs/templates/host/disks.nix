# The disk layout that the installation writes. It erases the disk: name it, such as "/dev/vda". Other
# layouts: initial-install of Innkeeper.
{ inputs, ... }:
{
  imports = [ (import "${inputs.innkeeper}/initial-install/cloud.nix" { device = "/dev/REPLACE"; }) ];
}
