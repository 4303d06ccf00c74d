# What the installation writes to the disk: everything that is on it goes. Other layouts: initial-install of Innkeeper.
{ inputs, ... }:
{
  imports = [ (import "${inputs.innkeeper}/initial-install/cloud.nix" { device = "/dev/vda"; }) ];
}
