# The network that builds reach, and their share of the host. The daemon keeps builds from the host and from private
# networks on every host, with a table of its own (crates/innkeeper-host/src/firewall/builds.rs); here are the exceptions.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.innkeeper.builds;
  whole = network: if lib.hasInfix ":" network then "${network}/128" else "${network}/32";
in
{
  imports = [ ./manager/options.nix ];

  options.services.innkeeper.builds.allowedNetworks = mkOption {
    type = types.listOf (
      types.strMatching "[0-9.]+(/[0-9]{1,2})?|[0-9a-fA-F:]*:[0-9a-fA-F:]*(/[0-9]{1,3})?"
    );
    default = [ ];
    example = [ "10.1.2.3/32" ];
    description = ''
      Networks and addresses that builds may reach, such as a mirror's or a Git server's. From the host's own ports and from
      other private networks they are kept, your own builds among them; DNS passes. Builds that download nothing have no
      network in any case.
    '';
  };

  config = {
    services.innkeeper.settings.builds.allowed_networks = map (
      network: if lib.hasInfix "/" network then network else whole network
    ) cfg.allowedNetworks;

    # Builders are processes of the Nix daemon: what a pull request builds must leave room for guests. With this policy, a
    # builder that is killed for its memory does not take the daemon along.
    systemd.services.nix-daemon.serviceConfig =
      lib.mkIf (config.services.innkeeper.enable && config.nix.enable)
        {
          MemoryMax = lib.mkDefault "50%";
          TasksMax = lib.mkDefault 4096;
          CPUWeight = lib.mkDefault 20;
          OOMPolicy = lib.mkDefault "continue";
        };
  };
}
